"""One file per model family; the folder listing is the registry."""
