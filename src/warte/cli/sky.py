"""`warte sky`: the commands of the night-sky domain."""

import typer

app = typer.Typer(help="Find satellites, aircraft and meteors in night-sky video.")


@app.callback()
def _sky() -> None:
    pass
