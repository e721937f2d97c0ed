"""Who this process is, where it meets the others, and how processes are started here.

A run of many processes is started by torchrun, by the mpiexec of Open MPI or MPICH, by SLURM's
srun, or, where none of them did, by `start_local` on this machine. Each of them says in its own
words which process this is; only torchrun says where to meet.
"""

from __future__ import annotations

import datetime
import importlib
import itertools
import multiprocessing
import os
import pickle
import re
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from warte.core.errors import MissingExtraError, SettingsError, StoppedError, WarteError

T = TypeVar("T")

TIMEOUT_S = 60.0
PATIENCE_S = 1800.0  # enough for one process to work alone, as process 0 does between steps
PORT = "29500"  # where processes of one machine meet, when the launcher does not say
# Names under which launchers say which process this is, how many there are, and which one it is on
# this machine. Those of MPI stand before SLURM's: mpiexec starts its helpers by srun.
LAUNCHERS = (
    ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
    ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"),
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),
)
# How many processes MPI has on this machine.
LOCAL_SIZES = ("OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS")
GRACE_S = 5.0  # what the others have to say for themselves after one process has ended


class LostError(StoppedError):
    """Another process has ended or does not answer; nothing can be agreed on any more."""


@dataclass(frozen=True)
class Place:
    """Which process this is (from 0), of how many, and where it computes."""

    rank: int
    size: int
    device: torch.device


# who we are, and where we meet ------------------------------------------------------------------


def launched() -> tuple[int, int, int] | None:
    """Rank, number of processes and rank on this machine, as the launcher says; or None.

    A process of torchrun, mpiexec (Open MPI, MPICH) or srun; a script that sbatch has started is
    not one of several.
    """
    for rank, size, local in LAUNCHERS:
        if rank in os.environ and size in os.environ:
            here = os.environ.get(local, os.environ[rank])
            return int(os.environ[rank]), int(os.environ[size]), int(here)
    return None


@contextmanager
def group(
    *, cuda: bool = False, timeout_s: float = TIMEOUT_S, patience_s: float | None = None
) -> Iterator[Place]:
    """Join the other processes of this run, and part from them at the end.

    A process that ends is noticed at once, because its connections close.

    Args:
        cuda: compute on a GPU of this machine (NCCL), else on the CPU (Gloo).
        timeout_s: how long to wait for another process to come first, in seconds.
        patience_s: how long to wait for one that is busy, in seconds; None: as long.

    Raises:
        SettingsError: the program was not started by a launcher.
        LostError: the other processes did not come, or ended without a word.
        MissingExtraError: processes of several machines need mpi4py to find each other.
    """
    found = launched()
    if found is None:
        raise SettingsError(
            "this is a single process; start several with torchrun --nproc-per-node 2 -m warte "
            "..., with mpiexec -n 2 or with srun -n 2"
        )
    rank, size, local = found
    host, port = _meeting(rank, size)
    os.environ.setdefault("MASTER_ADDR", host)
    os.environ.setdefault("MASTER_PORT", port)
    device = torch.device("cuda", local % torch.cuda.device_count()) if cuda else "cpu"
    place = Place(rank, size, torch.device(device))
    if cuda:
        torch.cuda.set_device(place.device)
    patience_s = timeout_s if patience_s is None else patience_s
    with waiting(timeout_s):
        store = _gathered(rank, size, timeout_s, patience_s)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if cuda else "gloo",
            store=store,
            rank=rank,
            world_size=size,
            timeout=datetime.timedelta(seconds=patience_s),
        )
    try:
        yield place
    finally:
        dist.destroy_process_group()


def _gathered(rank: int, size: int, timeout_s: float, patience_s: float) -> dist.Store:
    """Where the processes leave each other their addresses, when all of them have come.

    The place stays open as long as process 0 lives, so that those that come early to the next
    group of the same run wait there, and not at one that closes.
    """
    place = _open_store(os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"], rank, size, timeout_s)
    number = next(place.groups)
    store = dist.PrefixStore(f"warte/{number}", place.store)
    store.set(str(rank), "here")
    patience = datetime.timedelta(seconds=patience_s if number else timeout_s)
    store.wait([str(other) for other in range(size)], patience)
    place.store.set_timeout(datetime.timedelta(seconds=patience_s))
    return store


@dataclass(frozen=True)
class _Store:
    store: dist.Store
    groups: Iterator[int]  # numbers of the groups that meet there


@cache
def _open_store(host: str, port: str, rank: int, size: int, timeout_s: float) -> _Store:
    timeout = datetime.timedelta(seconds=timeout_s)
    store, _, _ = next(dist.rendezvous("env://", rank, size, timeout=timeout))
    return _Store(store, itertools.count())


def _meeting(rank: int, size: int) -> tuple[str, str]:
    """Address and port where the processes meet; what the environment says already goes before."""
    if "MASTER_ADDR" in os.environ or "RANK" in os.environ or size == 1:
        return "127.0.0.1", PORT
    if "OMPI_COMM_WORLD_RANK" in os.environ or "PMI_RANK" in os.environ:
        return _mpi_meeting(rank, size)
    nodes = os.environ.get("SLURM_STEP_NODELIST") or os.environ.get("SLURM_JOB_NODELIST", "")
    # Two jobs on one machine have other numbers, and so most likely other ports.
    job = int(os.environ.get("SLURM_JOB_ID", "0")) + int(os.environ.get("SLURM_STEP_ID", "0"))
    return first_node(nodes) or "127.0.0.1", str(20000 + job % 20000)


def first_node(nodes: str) -> str:
    """The first host of a list as SLURM writes it: "gpu[003-007,9],login1" gives "gpu003"."""
    first = re.match(r"([^,\[]*)(?:\[([^\],-]*)[^\]]*\]([^,\[]*))?", nodes)
    return "".join(part or "" for part in first.groups()) if first else ""


def _mpi_meeting(rank: int, size: int) -> tuple[str, str]:
    """Process 0 tells the others by MPI where it waits."""
    try:
        mpi = importlib.import_module("mpi4py.MPI")
    except ImportError as problem:
        local = next((os.environ[name] for name in LOCAL_SIZES if name in os.environ), None)
        if local == str(size):
            return "127.0.0.1", PORT
        raise MissingExtraError("mpi4py", "mpi") from problem
    world = mpi.COMM_WORLD
    if world.size != size:
        raise SettingsError(
            f"mpiexec started {size} processes and mpi4py sees {world.size}: it belongs to "
            "another MPI; use the mpiexec of that one, or set MASTER_ADDR and MASTER_PORT"
        )
    hosts = world.allgather(socket.gethostname())
    here = all(host == hosts[0] for host in hosts)
    found = ("127.0.0.1" if here else hosts[0], str(free_port()) if rank == 0 else "")
    host, port = world.bcast(found, root=0)
    return str(host), str(port)


def free_port() -> int:
    """A port of this machine that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


# what all processes agree on --------------------------------------------------------------------


@contextmanager
def waiting(timeout_s: float | None = None) -> Iterator[None]:
    """Turn the failure of a collective operation into one line.

    Raises:
        LostError: another process has ended.
    """
    try:
        yield
    except RuntimeError as problem:
        if not _is_lost(problem):
            raise
        within = "" if timeout_s is None else f" within {timeout_s:g} s"
        raise LostError(
            f"another process of this run ended or did not answer{within}; nothing was written; "
            "look at its own message and start the run again"
        ) from problem


def _is_lost(problem: RuntimeError) -> bool:
    """Whether a failure comes from the connection to another process."""
    return isinstance(problem, dist.DistError) or any(
        word in str(problem) for word in ("gloo", "Gloo", "NCCL", "ProcessGroup", "Connection")
    )


def total(part: Tensor) -> Tensor:
    """The sum of a tensor over all processes.

    Raises:
        LostError: another process has ended.
    """
    whole = part.clone(memory_format=torch.contiguous_format)
    with waiting():
        dist.all_reduce(whole)
    return whole


def everyones(value: T) -> list[T]:
    """A picklable value of each process, in the order of the ranks.

    Raises:
        LostError: another process has ended.
    """
    found: list[Any] = [None] * dist.get_world_size()
    with waiting():
        dist.all_gather_object(found, value)
    return found


@contextmanager
def together() -> Iterator[None]:
    """If the user's error happens in one process here, all end with the words of the first one.

    Without a group it does nothing.

    Raises:
        WarteError: as it happened in this process; else as in the first one where it did.
        LostError: another process has ended.
    """
    problem: WarteError | None = None
    try:
        yield
    except WarteError as found:
        if isinstance(found, LostError) or not dist.is_initialized():
            raise
        problem = found
    if not dist.is_initialized():
        return
    said = everyones(None if problem is None else (type(problem), str(problem)))
    if problem is not None:
        raise problem
    for first in said:
        if first is not None:
            raise _rebuilt(*first)


def _rebuilt(kind: type[WarteError], message: str) -> WarteError:
    """An error with its message, whatever its class is made from."""
    return kind.__new__(kind, message)


# processes of this machine ----------------------------------------------------------------------


def run(
    devices: int,
    function: Callable[..., T],
    *args: Any,
    cuda: bool = False,
    timeout_s: float = TIMEOUT_S,
    patience_s: float | None = None,
) -> T | None:
    """Call `function(place, *args)` in so many processes, however this one was started.

    A launcher's process joins the others and calls it; a single process calls it where one is
    enough, and else starts the others here (`start_local`).

    Args:
        devices: processes, at least 1; one GPU each if `cuda`.
        function: with what it gets and gives can be pickled.
        cuda, timeout_s, patience_s: see `group`.

    Returns:
        What it returned in process 0; None in the other processes of a launcher.

    Raises:
        SettingsError: the launcher started another number of processes, or there are fewer GPUs.
        LostError: a process has ended or did not answer.
    """
    found = launched()
    if found is not None:
        if found[1] != devices:
            raise SettingsError(
                f"--devices is {devices}, and the launcher started {found[1]} processes; "
                f"give --devices {found[1]}, or start {devices}"
            )
        with group(cuda=cuda, timeout_s=timeout_s, patience_s=patience_s) as place:
            result = function(place, *args)
            return result if place.rank == 0 else None
    if devices == 1:
        return function(Place(0, 1, torch.device("cuda" if cuda else "cpu")), *args)
    return start_local(
        devices, function, *args, cuda=cuda, timeout_s=timeout_s, patience_s=patience_s
    )


def start_local(
    devices: int,
    function: Callable[..., T],
    *args: Any,
    cuda: bool = False,
    timeout_s: float = TIMEOUT_S,
    patience_s: float | None = None,
) -> T:
    """Call `function(place, *args)` in so many new processes of this machine, as one group.

    When one of them fails all are ended, and its error is raised here: none is left behind, and
    none waits for it.

    Args:
        devices, function, cuda, timeout_s, patience_s: see `run`.

    Returns:
        What it returned in process 0.

    Raises:
        SettingsError: there are fewer GPUs than processes.
        LostError: a process was ended from outside, or did not answer.
        WarteError: what the first process that failed has raised.
        RuntimeError: a process failed otherwise; the message holds its traceback.
    """
    if cuda and devices > torch.cuda.device_count():
        raise SettingsError(
            f"--devices is {devices}, and this machine has {torch.cuda.device_count()} GPUs; "
            "give as many at most, or --device cpu"
        )
    context = multiprocessing.get_context("spawn")
    port, threads = free_port(), max(1, torch.get_num_threads() // devices)
    processes: list[BaseProcess] = []
    ears: list[Connection] = []
    try:
        for rank in range(devices):
            ear, mouth = context.Pipe(duplex=False)
            process: BaseProcess = context.Process(
                target=_work,
                args=(
                    mouth,
                    rank,
                    devices,
                    port,
                    threads,
                    cuda,
                    timeout_s,
                    patience_s,
                    function,
                    args,
                ),
            )
            process.start()
            mouth.close()  # so that the ear hears the end of the process
            processes.append(process)
            ears.append(ear)
        said = _listen(processes, ears)
        result: T = _verdict(said, devices)
        for process in processes:
            process.join(GRACE_S)
    finally:
        for process in processes:
            process.kill()
            process.join()
    return result


# What a process said: its result; the class and message of an error that a user can mend; the
# traceback of any other; or, where it said nothing, its exit code.
Said = tuple[Literal["result", "error", "traceback", "ended"], Any]


def _listen(processes: list[BaseProcess], ears: list[Connection]) -> dict[int, Said]:
    """What each process said before its end, by rank; soon after one fails it stops listening."""
    said: dict[int, Said] = {}
    open_ears = dict(enumerate(ears))
    deadline: float | None = None
    while open_ears:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        ready = wait(list(open_ears.values()), left)
        if not ready:
            break
        for rank in [rank for rank, ear in open_ears.items() if ear in ready]:
            try:
                said[rank] = pickle.loads(open_ears.pop(rank).recv_bytes())
            except EOFError:
                processes[rank].join(GRACE_S)
                said[rank] = ("ended", processes[rank].exitcode)
            if said[rank][0] != "result" and deadline is None:
                deadline = time.monotonic() + GRACE_S
    return said


def _verdict(said: dict[int, Said], size: int) -> Any:
    """The result of process 0, or the error that says most about what went wrong."""
    if all(kind == "result" for kind, _ in said.values()):
        return said[0][1]
    errors = [value for kind, value in said.values() if kind == "error"]
    for error, message in errors:
        if error is not LostError:
            raise _rebuilt(error, message)
    for rank, (kind, value) in said.items():
        if kind == "traceback":
            raise RuntimeError(f"process {rank} of {size} failed:\n{value}")
        if kind == "ended":
            raise LostError(
                f"process {rank} (of {size}, from 0) {_ended(value)}; the others were ended and "
                "nothing was written; start the run again"
            )
    raise LostError(errors[0][1])


def _ended(code: int | None) -> str:
    if code is None:
        return "does not answer"
    if code >= 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name
    return f"was ended by {name}" + (", as when memory is full" if name == "SIGKILL" else "")


def _work(
    mouth: Connection,
    rank: int,
    size: int,
    port: int,
    threads: int,
    cuda: bool,
    timeout_s: float,
    patience_s: float | None,
    function: Callable[..., Any],
    args: tuple[Any, ...],
) -> None:
    """The life of a process of `start_local`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C: the starter ends all
    threading.Thread(target=_end_with_starter, daemon=True).start()
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(threads)
    said: Said
    try:
        with group(cuda=cuda, timeout_s=timeout_s, patience_s=patience_s) as place:
            result = function(place, *args)
            said = ("result", result if rank == 0 else None)
    except WarteError as problem:
        said = ("error", (type(problem), str(problem)))
    except Exception:  # noqa: BLE001 - it is raised again in the process that started this one
        said = ("traceback", traceback.format_exc())
    # Not `send`: it would lend tensors out of the memory of this process, which ends now.
    mouth.send_bytes(pickle.dumps(said))
    mouth.close()
    if said[0] != "result":
        os._exit(2)  # what waits for the others, in threads of libraries, is not waited for


def _end_with_starter() -> None:
    """End this process when the one that started it has ended."""
    starter = multiprocessing.parent_process()
    assert starter is not None  # it is only called in a started process
    starter.join()
    os._exit(2)
