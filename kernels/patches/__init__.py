"""Which modules of a model take which kernel: one file a family, the stems those of the registry's."""
