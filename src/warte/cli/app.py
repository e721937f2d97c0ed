"""The command `warte`: mounts the domains and turns errors into one line and an exit code."""

import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Annotated

import typer

from warte import __version__
from warte.cli import data, earth, nmf, sky, spectra
from warte.core.data.disk import is_disk_full
from warte.core.errors import WarteError

OK = 0
USER_ERROR = 2
INTERRUPTED = 130  # 128 + SIGINT, as shells do
TERMINATED = 143  # 128 + SIGTERM

app = typer.Typer(
    help="Warte turns raw recordings into findings that a person can check.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(sky.app, name="sky")
app.add_typer(spectra.app, name="spectra")
app.add_typer(earth.app, name="earth")
app.add_typer(nmf.app, name="nmf")
app.add_typer(data.app, name="data")


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"warte {__version__}")
        raise typer.Exit


@app.callback()
def _warte(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 2 (user's error), 130 (Ctrl-C), 143.

    Args:
        arguments: the words after `warte`; None takes them from the process.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        # Not typer's standalone mode: it would print framed errors of several lines.
        code = app(args=words or ["--help"], prog_name="warte", standalone_mode=False)
        sys.stdout.flush()
    except WarteError as problem:
        return _fail(str(problem))
    except typer.TyperException as problem:
        return _fail(_usage_message(problem))
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except BrokenPipeError:
        _silence_stdout()
        return OK
    except OSError as problem:
        if not is_disk_full(problem):
            raise
        return _fail("the disk is full; nothing was written; make room and try again")
    if code == INTERRUPTED:  # typer turns Ctrl-C inside a command into this code
        print("interrupted; nothing was written", file=sys.stderr)
    return code if isinstance(code, int) else OK


def _fail(message: str) -> int:
    # in one piece: lines of many processes must not run into each other
    sys.stderr.write("error: " + " ".join(message.split()) + "\n")
    sys.stderr.flush()
    return USER_ERROR


def _usage_message(problem: typer.TyperException) -> str:
    context = getattr(problem, "ctx", None)
    command = "warte" if context is None else context.command_path
    return f"{problem.format_message().rstrip('.')}; `{command} --help` shows what is allowed"


def _terminate(number: int, frame: FrameType | None) -> None:
    # As an exception, so that the temporary folders of runs are removed.
    raise SystemExit(TERMINATED)


def _silence_stdout() -> None:
    """Let the interpreter's last flush go nowhere: the reader of the pipe (`| head`) is gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
