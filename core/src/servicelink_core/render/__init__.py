"""One module per kind of object that is written."""
