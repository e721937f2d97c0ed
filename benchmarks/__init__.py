"""Measurements of this program and its peers, side by side: `python -m benchmarks NAME`."""
