"""ZeroMQ sockets and the pump that feeds the node."""
