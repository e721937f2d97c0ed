"""Wall and core time of a piece of work, and how many threads it may use."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from threadpoolctl import threadpool_limits


@dataclass(frozen=True)
class Times:
    """Seconds: on the clock, and of all threads together."""

    wall: float
    core: float


def measure(work: Callable[[], object]) -> Times:
    """How long a piece of work takes, once."""
    started, used = time.perf_counter(), time.process_time()
    work()
    return Times(time.perf_counter() - started, time.process_time() - used)


def median_times(work: Callable[[], object], repeats: int) -> Times:
    """Medians of several runs; what has to be warmed up should be warm."""
    runs = [measure(work) for _ in range(repeats)]
    return Times(
        statistics.median(run.wall for run in runs), statistics.median(run.core for run in runs)
    )


@contextmanager
def on_threads(number: int) -> Iterator[None]:
    """Compute on so many threads, in PyTorch and in every library that NumPy calls."""
    before = torch.get_num_threads()
    with threadpool_limits(number):
        torch.set_num_threads(number)
        try:
            yield
        finally:
            torch.set_num_threads(before)
