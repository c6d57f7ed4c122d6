"""From files to samples: what people wrote, row by row, with its place."""
