"""What the node makes visible: logs."""
