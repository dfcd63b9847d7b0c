"""The pure node: everything between the loop and the links."""
