"""One piece of work for many frames, shared out among threads: NumPy and OpenCV let others run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")


def on_threads(work: Callable[[Item], object], items: Iterable[Item]) -> None:
    """Call ``work`` for each item, on as many threads as PyTorch has; the first error is raised.

    The items' results must not depend on their order.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        for item in items:
            work(item)
        return
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(work, items):
            pass
