"""One session with one peer: order, acknowledgement, credit, recovery."""
