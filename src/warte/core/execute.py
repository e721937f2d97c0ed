"""Many independent pieces of work on one machine or many: one executor, three engines."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Literal

Engine = Literal["processes", "mpi", "dask"]


@contextmanager
def executor(engine: Engine = "processes", workers: int = 1) -> Iterator[Executor | None]:
    """Workers for independent pieces; None where the work is done here, one piece after another."""
    if engine != "processes":
        raise NotImplementedError(engine)
    if workers == 1:
        yield None
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield pool
