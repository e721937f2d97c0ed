"""The night-sky benchmark: `warte sky find` and the four-frame recipe on the same clips."""
