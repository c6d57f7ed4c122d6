"""One file per kind; the folder listing is the list of kinds."""
