"""Work shared out among threads: NumPy, OpenCV and PyTorch let others run meanwhile."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import TypeVar

import torch

Item = TypeVar("Item")

STARTS_S = 0.05  # a thread that Ctrl-C met while it started has begun after so long, or never will


def on_threads(
    work: Callable[[Item], object], items: Iterable[Item], threads: int | None = None
) -> None:
    """Call ``work`` for each item, on as many threads as PyTorch has, or on fewer; the first error
    is raised.

    Each works with one thread of PyTorch's own: theirs would wait for each other at every step, for
    long where other programs hold the cores. The results must not depend on the order.

    Not by `concurrent.futures`: Ctrl-C in the middle of its locks leaves threads that nobody waits
    for, and a program that ends under a thread is aborted.
    """
    threads = threads or torch.get_num_threads()
    if threads == 1:
        for item in items:
            work(item)
        return
    todo = deque(items)
    errors: list[BaseException] = []

    def run(busy: threading.Lock) -> None:
        try:
            torch.set_num_threads(1)
            while True:
                try:
                    item = todo.popleft()
                except IndexError:  # all are taken
                    break
                work(item)
        except BaseException as error:  # noqa: BLE001 - raised again where it was asked for
            errors.append(error)
            todo.clear()
        finally:
            busy.release()

    locks = [threading.Lock() for _ in range(threads)]
    workers = [threading.Thread(target=run, args=(lock,)) for lock in locks]
    try:
        for lock, worker in zip(locks, workers, strict=True):
            lock.acquire()
            worker.start()
        for lock in locks:  # join would take an interrupted thread for one that has ended
            lock.acquire()
    except BaseException:
        todo.clear()
        _wait_for(workers)
        raise
    _wait_for(workers)
    if errors:
        raise errors[0]


def _wait_for(workers: list[threading.Thread]) -> None:
    """Until those that have begun have ended."""
    if any(worker.ident is None for worker in workers):
        time.sleep(STARTS_S)
    while any(worker.is_alive() for worker in workers):
        time.sleep(0.0005)
