"""Work shared out among threads: NumPy, OpenCV and PyTorch let others run meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")


def on_threads(
    work: Callable[[Item], object], items: Iterable[Item], threads: int | None = None
) -> None:
    """Call ``work`` for each item, on as many threads as PyTorch has, or on fewer; the first error
    is raised.

    Each works with one thread of PyTorch's own: theirs would wait for each other at every step, for
    long where other programs hold the cores. The results must not depend on the order.
    """
    threads = threads or torch.get_num_threads()
    if threads == 1:
        for item in items:
            work(item)
        return
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for _ in pool.map(work, items):
            pass
