"""Warte: from raw recordings to findings a person can check."""

__version__ = "0.1.0"
