"""`zmesh bench`: how fast zmesh is here, or from here to another machine."""
