"""Registered files and run folders."""
