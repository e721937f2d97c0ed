"""One process of the part `distributed`: `torchrun -m benchmarks.nmf.rows N M BETA ITERATIONS`."""

from __future__ import annotations

import json
import sys
import time

import torch

from benchmarks.nmf.data import RANK, counts
from warte.nmf import distributed


def main(arguments: list[str]) -> None:
    """Fit the rows of this process; the first one prints seconds and losses as JSON."""
    n, m, beta, iterations = (int(text) for text in arguments)
    torch.set_num_threads(1)
    with distributed.group() as place:
        first, end = distributed.own_rows(n, place)
        # Everyone makes the whole and keeps its part: the data are the same for any number.
        x = counts((n, m), 10.0, False, 0).x[first:end].clone()
        distributed.everyones(None)
        started = time.perf_counter()
        found = distributed.fit(x, RANK, beta=beta, init="random", tol=0, max_iter=iterations)
        seconds = time.perf_counter() - started
        if place.rank == 0:
            print(json.dumps({"seconds": seconds, "loss": found.loss, "solver": found.solver}))


if __name__ == "__main__":
    main(sys.argv[1:])
