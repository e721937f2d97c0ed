"""The same pieces by every engine; workers that die; no more under way than asked for."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from warte.core.errors import SettingsError
from warte.core.execute import LostWorkerError, Workers, executor, ordered, workers_of

MPIEXEC = shutil.which("mpiexec") or str(Path(sys.executable).with_name("mpiexec"))


@pytest.fixture(scope="module")
def pool() -> Iterator[Executor]:
    with executor("processes", 2) as workers:
        assert workers is not None
        yield workers


def square(number: int) -> int:
    time.sleep(0.01 * (number % 3))  # so that they do not end in the order they began
    return number * number


def threads(_: int) -> tuple[str, int]:
    import torch

    return os.environ["OMP_NUM_THREADS"], torch.get_num_threads()


def refuse(number: int) -> int:
    if number == 3:
        raise SettingsError("three is not allowed")
    return number


class Awkward(Exception):
    """Cannot be unpickled: it wants two arguments."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(one + two)


def awkward(_: int) -> None:
    raise Awkward("a", "b")


def die_once(folder: str, number: int) -> int:
    mark = Path(folder) / f"{number}"
    if number % 4 == 0 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def die(number: int) -> int:
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def pid_and_wait(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def test_without_workers_pieces_are_done_when_they_are_asked_for() -> None:
    seen: list[int] = []

    def note(number: int) -> int:
        seen.append(number)
        return number

    results = ordered(None, note, range(5))
    assert next(results) == 0
    assert seen == [0]
    assert list(results) == [1, 2, 3, 4]


def test_results_come_in_order(pool: Executor) -> None:
    assert list(ordered(pool, square, range(20))) == [number**2 for number in range(20)]
    assert workers_of(pool) == 2


def test_each_worker_computes_on_one_thread(pool: Executor) -> None:
    before = os.environ.get("OMP_NUM_THREADS")
    assert set(ordered(pool, threads, range(4))) == {("1", 1)}
    assert os.environ.get("OMP_NUM_THREADS") == before


def test_only_so_many_pieces_are_under_way() -> None:
    class Counting(Executor):
        """Never does a piece before it is asked for."""

        submitted = 0

        def submit(self, fn, /, *args, **kwargs):  # type: ignore[no-untyped-def]
            self.submitted += 1
            future: Future[int] = Future()
            future.set_result(fn(*args))
            return future

    counting = Counting()
    for done, _ in enumerate(ordered(counting, square, range(30), ahead=4), 1):
        assert counting.submitted <= done + 3
    assert counting.submitted == 30


def test_what_the_work_raises_comes_back(pool: Executor) -> None:
    with pytest.raises(SettingsError, match="three is not allowed"):
        list(ordered(pool, refuse, range(9)))
    with pytest.raises(RuntimeError, match="ab"):
        list(ordered(pool, awkward, range(2)))
    with pytest.raises((AttributeError, pickle.PicklingError), match="lambda"):
        list(ordered(pool, lambda number: number, range(2)))
    assert list(ordered(pool, square, range(3))) == [0, 1, 4]  # they still work


def test_a_worker_that_dies_is_replaced_and_its_piece_repeated(
    pool: Executor, tmp_path: Path
) -> None:
    assert list(ordered(pool, partial(die_once, str(tmp_path)), range(10))) == list(range(10))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "4", "8"]


def test_a_piece_that_always_kills_ends_in_one_error(pool: Executor) -> None:
    with pytest.raises(LostWorkerError, match=r"signal 9\) 3 times over one piece") as caught:
        list(ordered(pool, die, range(6)))
    assert "\n" not in str(caught.value)
    assert list(ordered(pool, square, range(3))) == [0, 1, 4]


def test_an_exception_in_the_block_ends_the_workers_at_once() -> None:
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt), executor("processes", 2) as pool:
        assert isinstance(pool, Workers)
        pids = list(ordered(pool, pid_and_wait, [0.0, 0.0]))
        pool.submit(pid_and_wait, 60.0)
        time.sleep(0.1)
        raise KeyboardInterrupt
    assert time.monotonic() - started < 30
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.parametrize(
    ("engine", "workers", "message"),
    [("processes", 0, "--workers 0"), ("threads", 2, "--engine threads"), ("mpi", 2, "mpiexec")],
)
def test_settings_that_cannot_be(engine: str, workers: int, message: str) -> None:
    if engine == "mpi":
        pytest.importorskip("mpi4py")
    with pytest.raises(SettingsError, match=message), executor(engine, workers):  # type: ignore[arg-type]
        pass


PROGRAM = """
    import os, sys
    from warte.core.execute import executor, ordered, serve

    def square(number):
        return number * number

    def rank(number):
        if number == 3 and len(sys.argv) > 1:
            os.kill(os.getpid(), 9)
        return os.environ["PMI_RANK"]

    if __name__ == "__main__":
        if serve("mpi"):
            raise SystemExit(0)
        if "early" in sys.argv:
            raise SystemExit("error: bad input")
        for _ in range(2):
            with executor("mpi") as pool:
                print(list(ordered(pool, square, range(6))))
        with executor("mpi") as pool:
            print(sorted(set(ordered(pool, rank, range(6)))))
    """


def mpiexec(tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("mpi4py")
    if not Path(MPIEXEC).exists():
        pytest.skip("there is no mpiexec")
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))
    command = [MPIEXEC, "-n", "3", sys.executable, str(program), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=100)


def test_ranks_of_mpi(tmp_path: Path) -> None:
    run = mpiexec(tmp_path)
    assert run.returncode == 0, run.stderr
    squares = str([number**2 for number in range(6)])
    lines = run.stdout.splitlines()
    assert lines[:2] == [squares, squares]  # once, although three ranks run the program
    assert len(lines) == 3
    assert set(lines[2]) & set("12")
    assert "0" not in lines[2]


@pytest.mark.parametrize("word", ["early", "die"])
def test_a_rank_of_mpi_that_ends_leaves_none_waiting(tmp_path: Path, word: str) -> None:
    run = mpiexec(tmp_path, word)
    assert run.returncode != 0
    assert word != "early" or run.stderr.count("error: bad input") == 1


def test_another_server_than_a_dask_scheduler_is_one_line() -> None:
    """Dask takes its first eight bytes for a number of bytes to come."""
    pytest.importorskip("distributed")
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            with suppress(OSError):  # closed at the end of the test
                while True:
                    client, _ = server.accept()
                    client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                    client.close()

        threading.Thread(target=answer, daemon=True).start()
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        with (
            pytest.raises(LostWorkerError, match="does not answer"),
            executor("dask", scheduler=address),
        ):
            pass


def test_dask(tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    program = tmp_path / "program.py"
    text = PROGRAM.replace('"mpi"', '"dask", 2').replace('serve("dask", 2)', 'serve("dask")')
    program.write_text(textwrap.dedent(text.replace('os.environ["PMI_RANK"]', '"w"')))
    run = subprocess.run(
        [sys.executable, str(program)], capture_output=True, text=True, timeout=100
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == [str([number**2 for number in range(6)])] * 2 + ["['w']"]
