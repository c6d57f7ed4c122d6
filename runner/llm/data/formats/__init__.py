"""One file a format: `COLUMNS` that it reads, `fits(record)`, and `sample(record, place=)`, which raises
BrokenSampleError."""
