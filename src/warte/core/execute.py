"""Many independent pieces of work on one machine or many: one executor, three engines.

    with executor("processes", workers=4) as pool:
        for result in ordered(pool, function, pieces):
            ...

`processes` are those of this machine, `mpi` the other ranks of `mpiexec -n N`, `dask` a cluster of
dask.distributed. Results come in the order of the pieces whatever the engine, and only so many
pieces are under way that memory does not depend on their number. The work of a process that dies is
repeated by another. Each worker computes on one thread.
"""

from __future__ import annotations

import atexit
import logging
import multiprocessing
import os
import pickle
import queue
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import cache
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import Any, Literal, TypeVar

from warte.core.errors import MissingExtraError, SettingsError, StoppedError, WarteError

Engine = Literal["processes", "mpi", "dask"]
A = TypeVar("A")
B = TypeVar("B")

RETRIES = 2  # times that a piece is repeated whose worker died
AHEAD = 2  # pieces that are under way or done but not asked for, for each worker
POLL_S = 0.01  # how often a rank without work looks whether there is some
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class LostWorkerError(StoppedError):
    """A worker died over one piece again and again, or the cluster cannot be reached."""


@contextmanager
def executor(
    engine: Engine = "processes",
    workers: int = 1,
    *,
    retries: int = RETRIES,
    scheduler: str = "",
) -> Iterator[Executor | None]:
    """Workers for independent pieces; None where the work is done here, one piece after another.

    Args:
        engine: "processes": processes of this machine; one that dies is replaced. "mpi": all
            ranks but 0 of a program that `mpiexec` started work for rank 0. "dask": processes of
            dask on this machine, or those of `scheduler`.
        workers: processes to start. Not used by "mpi", nor where there is a `scheduler`.
        retries: how often a piece is repeated whose worker died ("processes" and "dask"). With
            "mpi" a rank that dies ends the whole program: MPI does so.
        scheduler: address of a dask scheduler, such as "tcp://10.0.0.1:8786".

    With "mpi" only rank 0 runs the block. The other ranks stay inside this call and work until
    rank 0's program ends; then they leave the program by SystemExit(0), so that nothing after it
    happens there either. A command that would do something before this call which only one
    rank may do (make a folder, print) asks `serve` first.

    Raises:
        SettingsError: fewer than one worker, or "mpi" without `mpiexec`.
        MissingExtraError: the engine's package is not installed.
        LostWorkerError: from the futures, where a worker died once too often.
    """
    if workers < 1:
        raise SettingsError(f"--workers {workers}: it must be 1 or more")
    if engine not in ("processes", "mpi", "dask"):
        raise SettingsError(f"--engine {engine}: it must be processes, mpi or dask")
    opened: AbstractContextManager[Executor | None]
    if engine == "mpi":
        if serve(engine):
            raise SystemExit(0)
        opened = _mpi()
    elif engine == "dask":
        opened = _dask(workers, retries, scheduler)
    else:
        opened = nullcontext() if workers == 1 else _processes(workers, retries)
    with opened as pool:
        yield pool


def ordered(
    pool: Executor | None,
    function: Callable[[A], B],
    pieces: Iterable[A],
    *,
    ahead: int | None = None,
) -> Iterator[B]:
    """What `function` returns for each piece, in the order of the pieces.

    Args:
        pool: from `executor`; None works here, when the result is asked for.
        function: can be pickled where there is a pool.
        pieces: read only as far as they are handed out.
        ahead: how many pieces are under way or done and not yet asked for, at most; two for each
            worker by default.

    Raises what `function` raises. Pieces that were not begun by then, or when the iterator is
    closed, are not begun any more.
    """
    if pool is None:
        yield from map(function, pieces)
        return
    most = AHEAD * workers_of(pool) if ahead is None else max(1, ahead)
    waiting: deque[Future[B]] = deque()
    try:
        for piece in pieces:
            waiting.append(pool.submit(function, piece))
            if len(waiting) >= most:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def workers_of(pool: Executor | None) -> int:
    """How many pieces are worked on at once."""
    return pool.workers if isinstance(pool, Workers | _Lent) else 1


# Processes of this machine


@dataclass
class _Piece:
    """One call, and the future that its caller holds."""

    future: Future[Any]
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class Workers(Executor):
    """Processes of this machine, each tended by a thread that knows which piece it has.

    Where a process ends over a piece (killed for its memory, a fault in a library), another is
    started and the piece repeated; `concurrent.futures` gives all pieces up then.
    """

    def __init__(self, workers: int, retries: int = RETRIES) -> None:
        self.workers = workers
        self._retries = retries
        self._pieces: queue.SimpleQueue[_Piece | None] = queue.SimpleQueue()
        self._closed = False
        self._stopped = threading.Event()
        self._running: set[_Process] = set()
        self._threads = [threading.Thread(target=self._tend, daemon=True) for _ in range(workers)]
        for thread in self._threads:
            thread.start()

    def submit(self, fn: Callable[..., B], /, *args: Any, **kwargs: Any) -> Future[B]:
        """Have a call done by the next process that is free."""
        if self._closed:
            raise RuntimeError("these workers were sent home")
        future: Future[B] = Future()
        self._pieces.put(_Piece(future, fn, args, kwargs))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more pieces; do those that were taken, or cancel what has not begun."""
        self._closed = True
        while cancel_futures:
            try:
                piece = self._pieces.get_nowait()
            except queue.Empty:
                break
            if piece is not None:
                piece.future.cancel()
        for _ in self._threads:
            self._pieces.put(None)
        if wait:
            for thread in self._threads:
                thread.join()

    def stop(self) -> None:
        """Kill the processes in the middle of their pieces."""
        self._stopped.set()
        for process in list(self._running):
            process.kill()
        self.shutdown(cancel_futures=True)

    def _tend(self) -> None:
        """Give one process piece after piece; replace it when it dies."""
        process: _Process | None = None
        while (piece := self._pieces.get()) is not None:
            if piece.future.set_running_or_notify_cancel():
                process = self._do(piece, process)
                # Nothing may keep a result alive while the thread waits.
                del piece
        if process is not None:
            process.close()
            self._running.discard(process)

    def _do(self, piece: _Piece, process: _Process | None) -> _Process | None:
        """Have one piece done; returns the process that did it, None where it is gone."""
        code: int | None = None
        for _ in range(self._retries + 1):
            if process is None:
                process = _Process()
                self._running.add(process)
            if self._stopped.is_set():
                process.kill()
            try:
                fine, result = process.call(piece)
            except (EOFError, OSError):  # the pipe broke: the process is dead
                code = process.close()
                self._running.discard(process)
                process = None
                if self._stopped.is_set():
                    break
                continue
            except Exception as problem:  # noqa: BLE001 - cannot be pickled: the caller's to mend
                fine, result = False, problem
            if fine:
                piece.future.set_result(result)
            else:
                piece.future.set_exception(result)
            return process
        piece.future.set_exception(_lost(f"{_how(code)} {self._retries + 1} times over one piece"))
        return None


@dataclass(eq=False)
class _Process:
    """One process that does one call after another."""

    _process: Any = field(init=False)
    _pipe: Connection = field(init=False)
    _known: Callable[..., Any] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs,), daemon=True)
        with _started_with_one_thread():
            self._process.start()
        theirs.close()

    def call(self, piece: _Piece) -> tuple[bool, Any]:
        """Whether the call ended well, and its result or what it raised.

        Raises EOFError or OSError where the process died.
        """
        # A function may hold a whole model: it is sent once.
        function = None if piece.function is self._known else piece.function
        message = ForkingPickler.dumps((function, piece.args, piece.kwargs))
        self._known = piece.function
        self._pipe.send_bytes(message)
        answer: tuple[bool, Any] = self._pipe.recv()
        return answer

    def kill(self) -> None:
        """End it now; whoever waits for its answer gets EOFError."""
        self._process.kill()

    def close(self) -> int | None:
        """Send it home, wait for its end and return its exit code."""
        self._pipe.close()
        self._process.join()
        code: int | None = self._process.exitcode
        return code


_starting = threading.Lock()


@contextmanager
def _started_with_one_thread() -> Iterator[None]:
    """Processes started in the block compute on one thread, from their first import on."""
    with _starting:
        before = {name: os.environ.get(name) for name in THREADS}
        os.environ.update(dict.fromkeys(THREADS, "1"))
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


def _work(pipe: Connection) -> None:
    """What a process does: calls that come through the pipe, until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the program that waits for us
    keep_to_one_thread()
    function: Callable[..., Any] | None = None
    with suppress(EOFError, OSError):  # the program that waits for us has ended
        while True:
            function, answer = _answer(function, pipe.recv_bytes())
            pipe.send_bytes(answer)
            del answer  # a worker that waits holds no results


def _answer(
    known: Callable[..., Any] | None, message: bytes
) -> tuple[Callable[..., Any] | None, bytes]:
    """Do the call that a message asks for: the function that is known now, and the answer."""
    try:
        given, args, kwargs = pickle.loads(message)
        known = given or known
        assert known is not None
        return known, bytes(ForkingPickler.dumps((True, known(*args, **kwargs))))
    except Exception as problem:  # noqa: BLE001 - the caller's future raises it
        return known, bytes(ForkingPickler.dumps((False, _that_travels(problem))))


def _that_travels(problem: Exception) -> Exception:
    """The exception with its traceback as a note; one that can be pickled."""
    if not isinstance(problem, WarteError):
        problem.add_note("".join(traceback.format_exception(problem)))
    try:
        pickle.loads(pickle.dumps(problem))
    except Exception:  # noqa: BLE001 - any code may run there
        kind = WarteError if isinstance(problem, WarteError) else RuntimeError
        return kind(str(problem))
    return problem


def keep_to_one_thread() -> None:
    """Compute on one thread in this process, in PyTorch and in what is imported later."""
    os.environ.update(dict.fromkeys(THREADS, "1"))
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


def _how(code: int | None) -> str:
    if code is not None and code < 0:
        return f"a worker was killed (signal {-code})"
    return f"a worker ended (exit code {code})"


def _lost(what: str) -> LostWorkerError:
    return LostWorkerError(
        f"{what}; if the memory is short, take fewer --workers or a smaller --tile"
    )


@contextmanager
def _processes(workers: int, retries: int) -> Iterator[Workers]:
    pool = Workers(workers, retries)
    try:
        yield pool
    except BaseException:
        pool.stop()
        raise
    pool.shutdown()


# Engines of other packages


class _Lent(Executor):
    """The executor of another package, and how many workers it has."""

    def __init__(self, inner: Executor, workers: int, lost: tuple[type[Exception], ...]) -> None:
        self.workers = workers
        self._inner = inner
        self._lost = lost

    def submit(self, fn: Callable[..., B], /, *args: Any, **kwargs: Any) -> Future[B]:
        """Have a call done by one of the workers."""
        theirs = self._inner.submit(fn, *args, **kwargs)
        ours: Future[B] = Future()
        theirs.add_done_callback(lambda done: self._pass_on(done, ours))
        ours.add_done_callback(lambda done: theirs.cancel() if done.cancelled() else None)
        return ours

    def _pass_on(self, theirs: Future[B], ours: Future[B]) -> None:
        if theirs.cancelled():
            ours.cancel()
        if not ours.set_running_or_notify_cancel():
            return
        problem = theirs.exception()
        if isinstance(problem, self._lost):
            ours.set_exception(_lost("workers died over one piece again and again"))
        elif problem is not None:
            ours.set_exception(problem)
        else:
            ours.set_result(theirs.result())


def serve(engine: Engine) -> bool:
    """Work for rank 0 until its program ends, if this is another rank; True then.

    A command that `mpiexec` started on many ranks begins with

        if serve(engine):
            return

    and everything after it happens on rank 0 alone: it reads, opens an `executor` (several, one
    after another, if it likes), writes and reports errors. False at once on rank 0 and with the
    other engines.

    Raises:
        SettingsError: "mpi" without `mpiexec`.
        MissingExtraError: mpi4py or an MPI library is not installed.
    """
    if engine != "mpi":
        return False
    world, pools = _mpi4py()
    if world.Get_size() < 2:
        raise SettingsError(
            "--engine mpi: this is a single process; type: mpiexec -n 4 warte ... --engine mpi"
        )
    if world.Get_rank() == 0:
        _release_at_exit()
        return False
    keep_to_one_thread()
    while _told(world):
        with pools.MPICommExecutor(world, root=0):
            pass
    return True


@contextmanager
def _mpi() -> Iterator[Executor]:
    """The other ranks, which are in `serve`."""
    world, pools = _mpi4py()
    _tell(world, True)
    with pools.MPICommExecutor(world, root=0) as inner:
        yield _Lent(inner, world.Get_size() - 1, ())


@cache
def _release_at_exit() -> None:
    """Rank 0's program lets the other ranks go when it ends, however it ends."""
    world, _ = _mpi4py()
    atexit.register(_tell, world, False)


def _tell(world: Any, more: bool) -> None:
    """Tell the ranks in `serve` whether there is more work."""
    world.Ibcast(bytearray([more]), root=0).Wait()


def _told(world: Any) -> bool:
    """Wait for rank 0's word without keeping the core busy."""
    word = bytearray(1)
    request = world.Ibcast(word, root=0)
    while not request.Test():
        time.sleep(POLL_S)
    return bool(word[0])


def _mpi4py() -> tuple[Any, Any]:
    """The communicator of all ranks, and mpi4py's executors."""
    try:
        from mpi4py import MPI, futures
    except (ImportError, RuntimeError) as problem:  # RuntimeError: no MPI library is found
        raise MissingExtraError("mpi4py", "mpi") from problem
    return MPI.COMM_WORLD, futures


@contextmanager
def _dask(workers: int, retries: int, scheduler: str) -> Iterator[Executor]:
    """Processes of dask on this machine, or those of a scheduler."""
    try:
        import distributed
    except ImportError as problem:
        raise MissingExtraError("distributed", "dask") from problem
    lost = (distributed.scheduler.KilledWorker, distributed.client.FutureCancelledError)
    with _dask_client(distributed, workers, scheduler) as client:
        client.run(keep_to_one_thread)
        count = sum(client.nthreads().values())
        if count == 0:
            raise LostWorkerError(f"--scheduler {scheduler} has no workers; start some there")
        yield _Lent(client.get_executor(pure=False, retries=retries), count, lost)


@contextmanager
def _dask_client(distributed: Any, workers: int, scheduler: str) -> Iterator[Any]:
    if scheduler:
        try:
            client = distributed.Client(scheduler, timeout=10)
        except (OSError, ValueError, MemoryError, OverflowError, EOFError) as problem:
            # Another kind of server answers with words that dask takes for lengths: MemoryError.
            raise LostWorkerError(
                f"--scheduler {scheduler} does not answer; look whether dask scheduler runs there"
            ) from problem
        with client:
            yield client
        return
    with (
        distributed.LocalCluster(
            workers, threads_per_worker=1, host="127.0.0.1", dashboard_address=None,
            silence_logs=logging.CRITICAL,
        ) as cluster,
        distributed.Client(cluster) as client,
    ):  # fmt: skip
        yield client
