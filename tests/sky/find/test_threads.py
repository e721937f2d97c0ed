"""Work shared out among threads: the same results, and errors that are not lost."""

import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from warte.sky.find.half import half, single
from warte.sky.find.prepare import prepare
from warte.sky.find.threads import on_threads


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("number", [1, 3])
def test_every_item_is_worked_on_once(number: int) -> None:
    torch.set_num_threads(number)
    done: list[int] = []
    on_threads(done.append, range(50))
    assert sorted(done) == list(range(50))


@pytest.mark.parametrize("number", [1, 3])
def test_an_error_reaches_the_caller(number: int) -> None:
    torch.set_num_threads(number)

    def work(item: int) -> None:
        if item == 7:
            raise ValueError("seven")

    with pytest.raises(ValueError, match="seven"):
        on_threads(work, range(20))


def test_ctrl_c_while_a_thread_starts_leaves_none(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(2)
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    before = threading.active_count()
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        on_threads(time.sleep, [0.3] * 40)
    assert time.monotonic() - begin < 2  # what had begun is waited for, the rest is left
    assert threading.active_count() == before


def test_a_window_is_the_same_on_any_number_of_threads(
    paint: Callable[..., np.ndarray],
) -> None:
    rng = np.random.default_rng(5)
    stars = np.column_stack([rng.uniform(-70, 70, 25), rng.uniform(-50, 50, 25), np.full(25, 40.0)])
    shift = np.column_stack([np.linspace(0, 2, 24), np.linspace(1, 0, 24)])
    frames = paint(stars, shift, np.ones(24, complex), rng)
    windows = []
    for number in (1, 3):
        torch.set_num_threads(number)
        windows.append(prepare(frames.copy(), 0, 1.0))
    for name in ("cells", "residual", "noise", "stars", "red"):
        one, three = (getattr(window, name) for window in windows)
        np.testing.assert_array_equal(one, three)


def test_half_and_back() -> None:
    values = np.array([0.0, -1.5, 255.0, 6e4, 0.1], np.float32)
    assert half(values).dtype == np.float16
    np.testing.assert_array_equal(half(values), values.astype(np.float16))
    np.testing.assert_array_equal(single(half(values)), half(values).astype(np.float32))
