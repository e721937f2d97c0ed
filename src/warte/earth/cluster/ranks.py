"""The processes that cluster together: one, those of MPI, or those of torch.distributed.

A process reads its own windows, and sums and small values are all that is exchanged. Sums are of
whole numbers, so they do not depend on how many processes there are.

Torch is imported only where it is used: it takes most of the memory that a run may use.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from warte.core.errors import MissingExtraError, WarteError

T = TypeVar("T")

TIMEOUT_S = 600.0  # how long torch.distributed waits for another process


class Ranks(Protocol):
    """What clustering needs of the other processes; every process calls the same in turn."""

    @property
    def rank(self) -> int:
        """Which process this is, from 0; the first one writes the files."""
        ...

    @property
    def size(self) -> int:
        """How many processes there are."""
        ...

    def sum(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The sum over all processes of arrays of one shape, int64 or float64."""
        ...

    def gather(self, value: T) -> list[T]:
        """The picklable value of each process, in the order of the ranks, on all of them."""
        ...

    def workers(self) -> AbstractContextManager[Executor | None]:
        """The other processes as workers of the first one, which alone gets an executor.

        None where there are no others that can work so. The others stay in it as long as the
        first one.
        """
        ...


@dataclass(frozen=True)
class Alone:
    """One process."""

    rank: int = 0
    size: int = 1

    def sum(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """See `Ranks`."""
        return values

    def gather(self, value: T) -> list[T]:
        """See `Ranks`."""
        return [value]

    def workers(self) -> AbstractContextManager[Executor | None]:
        """See `Ranks`."""
        return nullcontext()


@dataclass(frozen=True)
class MpiRanks:
    """The processes of an MPI communicator."""

    comm: Any

    @property
    def rank(self) -> int:
        """See `Ranks`."""
        return int(self.comm.Get_rank())

    @property
    def size(self) -> int:
        """See `Ranks`."""
        return int(self.comm.Get_size())

    def sum(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """See `Ranks`."""
        total = np.empty_like(values)
        self.comm.Allreduce(np.ascontiguousarray(values), total)
        return total

    def gather(self, value: T) -> list[T]:
        """See `Ranks`."""
        found: list[T] = self.comm.allgather(value)
        return found

    def workers(self) -> AbstractContextManager[Executor | None]:
        """See `Ranks`."""
        if self.size == 1:
            return nullcontext()
        from mpi4py.futures import MPICommExecutor

        return _helped(MPICommExecutor(self.comm, root=0))


@contextmanager
def _helped(executor: Any) -> Iterator[Executor | None]:
    with executor as pool:
        yield pool


@dataclass(frozen=True)
class TorchRanks:
    """The processes of torch.distributed, whose group exists already."""

    rank: int
    size: int

    def sum(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """See `Ranks`."""
        import torch

        from warte.core.train import launch

        return launch.total(torch.from_numpy(np.array(values))).numpy()

    def gather(self, value: T) -> list[T]:
        """See `Ranks`."""
        from warte.core.train import launch

        return launch.everyones(value)

    def workers(self) -> AbstractContextManager[Executor | None]:
        """See `Ranks`."""
        return nullcontext()


@contextmanager
def mpi_ranks() -> Iterator[Ranks]:
    """The processes that mpiexec started, or one where it did not.

    An error that not all processes share ends all of them: the others would wait for ever.

    Raises:
        MissingExtraError: mpi4py is not installed.
    """
    try:
        from mpi4py import MPI
    except ImportError as problem:
        raise MissingExtraError("mpi4py", "mpi") from problem
    ranks = MpiRanks(MPI.COMM_WORLD)
    try:
        yield ranks
    except WarteError:
        raise  # agreed on by all, see `together`
    except BaseException:
        if ranks.size == 1:
            raise
        traceback.print_exc()
        sys.stderr.write(f"error: process {ranks.rank} failed; all {ranks.size} end\n")
        sys.stderr.flush()
        ranks.comm.Abort(1)


@contextmanager
def torch_ranks(timeout_s: float = TIMEOUT_S) -> Iterator[Ranks]:
    """The processes that torchrun, mpiexec or srun started, joined by Gloo.

    Args:
        timeout_s: how long to wait for another process, in seconds.

    Raises:
        SettingsError: the program was not started by a launcher.
        LostError: the other processes did not come, or one of them ended.
    """
    from warte.core.train import launch

    with launch.group(timeout_s=timeout_s) as place:
        yield TorchRanks(place.rank, place.size)


def together(ranks: Ranks, work: Callable[[], T]) -> T:
    """Do a piece of work in every process; an error of one that a user can mend is that of all.

    Raises:
        WarteError: what the first process said that failed.
    """
    failed: WarteError | None = None
    try:
        done = work()
    except WarteError as problem:
        failed = problem
    errors = [error for error in ranks.gather(failed) if error is not None]
    if errors:
        raise errors[0] if failed is None else failed
    return done
