"""One file a kind of file: `records(path, begin)` yields the rows from number ``begin`` on, in order, without holding
the file, and returns how many rows the file has. A row that cannot be read is there with its reason."""
