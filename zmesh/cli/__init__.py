"""The zmesh command."""
