"""How peers are found: a table of candidates and its sources."""
