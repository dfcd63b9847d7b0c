"""Brokerless, reliable messaging for services on a LAN."""

__version__ = "0.1.0"
