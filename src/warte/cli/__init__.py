"""The command line: one module per domain; each command parses, calls a public function, prints."""

from warte.cli.app import main

__all__ = ["main"]
