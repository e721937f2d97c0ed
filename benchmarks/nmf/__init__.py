"""The benchmark of matrix factorisation: `warte.nmf` and its peers on the same data and start."""
