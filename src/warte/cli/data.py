"""`warte data`: the registered files, what is here of them, and fetching one."""

from typing import Annotated

import typer

from warte.cli.common import JsonOption, QuietOption, print_result

app = typer.Typer(help="Registered data files: list them, fetch one.")


@app.command("list")
def list_files(as_json: JsonOption = False) -> None:
    """List the registered files and where they are here; --json adds address and sha256."""
    from warte.core.data import registry

    rows = registry.overview()
    shown = ("name", "where", "licence", "description")
    print_result(rows if as_json else [{key: row[key] for key in shown} for row in rows], as_json)


@app.command("get")
def get_file(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of a registered file.")],
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Fetch a registered file if it is not here, check it, and print its path."""
    from warte.core.data import registry

    file = registry.lookup(name)
    if not quiet and registry.locate(name) is None and not file.made_by:
        typer.echo(f"fetching {name} (licence: {file.licence})", err=True)
    path = registry.get(name, download=True)
    if as_json:
        print_result({"name": name, "path": str(path), "licence": file.licence}, True)
    else:
        print(path)
