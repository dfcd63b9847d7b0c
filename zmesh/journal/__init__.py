"""The journal: what a node keeps on disk, in SQLite, written by one thread."""
