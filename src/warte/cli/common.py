"""What the commands of all domains share: options, progress on stderr, results on stdout."""

import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from warte.core.errors import SettingsError

if TYPE_CHECKING:
    import pandas as pd

PROGRESS_AFTER_S = 2.0  # a command that ends sooner shows no progress
PIPE_WIDTH = 1000  # columns at most where a table goes to a file or a pipe: nothing is folded

Device = Literal["auto", "cpu", "cuda"]
Report = Callable[[str, int, int | None], None]  # (step, done, total or None), called by the work

OutOption = Annotated[
    Path, typer.Option("--out", "-o", metavar="FOLDER", help="Folder to write the results into.")
]
ForceOption = Annotated[
    bool, typer.Option("--force", help="Replace the folder if it holds earlier results.")
]
SeedOption = Annotated[
    int, typer.Option("--seed", min=0, help="Seed of the random numbers; same seed, same result.")
]
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="No progress on stderr; errors are still shown.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
DeviceOption = Annotated[
    Device, typer.Option("--device", help="Where to compute; auto takes a GPU if there is one.")
]


def command_line() -> list[str]:
    """The command as the user typed it, for run.json."""
    return ["warte", *sys.argv[1:]]


def choose_device(device: Device) -> Literal["cpu", "cuda"]:
    """The device that is meant by the flag --device. Imports torch.

    Raises:
        SettingsError: cuda is asked for where PyTorch sees no CUDA device.
    """
    if device == "cpu":
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if device == "cuda":
        raise SettingsError(
            "--device cuda: PyTorch sees no CUDA device here; use --device cpu or --device auto"
        )
    return "cpu"


@contextmanager
def progress(quiet: bool, *, after_s: float = PROGRESS_AFTER_S) -> Iterator[Report]:
    """Progress bars on stderr, one per step, for work that takes longer than `after_s` seconds.

        with progress(quiet) as report:
            for done, frame in enumerate(frames):
                report("reading", done, len(frames))

    Where stderr is not a terminal, the steps are written once, at the end.

    Args:
        quiet: show nothing.
        after_s: seconds without any bar.

    Yields:
        a function of the step's name, how much of it is done, and the total (None: not known).
    """
    if quiet:
        yield lambda step, done, total: None
        return
    bars = _Bars(after_s)
    try:
        yield bars.report
    finally:
        bars.stop()


class _Bars:
    """The rich display behind `progress`; it is made when the first bar is due."""

    def __init__(self, after_s: float) -> None:
        self._due = time.monotonic() + after_s
        self._display: Any = None
        self._bars: dict[str, Any] = {}

    def report(self, step: str, done: int, total: int | None) -> None:
        if self._display is None:
            if time.monotonic() < self._due:
                return
            self._display = _make_display()
            self._display.start()
        if step not in self._bars:
            self._bars[step] = self._display.add_task(step, total=total)
        self._display.update(self._bars[step], completed=done, total=total)

    def stop(self) -> None:
        if self._display is not None:
            self._display.stop()


def _make_display() -> Any:
    from rich import progress as bars
    from rich.console import Console

    return bars.Progress(
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TimeRemainingColumn(),
        console=Console(stderr=True),
    )


def print_result(
    result: "pd.DataFrame | Mapping[str, object] | Sequence[Mapping[str, object]]", as_json: bool
) -> None:
    """Print a result on stdout: a table for people, or JSON for programs.

    A data frame and a list of mappings are printed as rows (JSON: a list of objects), one mapping
    as names and values (JSON: an object). In JSON, NaN and infinity become null.

    Args:
        result: the table or the values.
        as_json: print JSON.
    """
    columns: list[str] = []
    rows: Any
    if isinstance(result, Mapping):
        rows = dict(result)
    elif isinstance(result, Sequence):
        rows = [dict(row) for row in result]
        columns = list(dict.fromkeys(name for row in rows for name in row))
    else:
        columns = [str(name) for name in result.columns]
        rows = result.to_dict(orient="records")
    if as_json:
        print(json.dumps(_finite(rows), indent=2, ensure_ascii=False, default=_json_value))
        return
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=PIPE_WIDTH)
    console.print(_table(columns, rows))


def _table(columns: list[str], rows: Any) -> Any:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    if isinstance(rows, dict):
        table = Table(show_header=False, box=None, pad_edge=False)
        for name, value in rows.items():
            table.add_row(Text(str(name)), Text(_cell(value)))
        return table
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        numbers = all(isinstance(row.get(name), int | float) for row in rows)
        table.add_column(name, justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(row.get(name))) for name in columns))
    return table


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e5 else f"{value:.6g}"
    return str(value)


def _finite(value: Any) -> Any:
    """The same value with null in the place of NaN and infinity, which JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return value


def _json_value(value: Any) -> Any:
    """What json cannot write by itself: NumPy scalars and arrays, paths, times."""
    return _finite(value.tolist()) if hasattr(value, "tolist") else str(value)
