"""The command line, `octavo …`: verbs that parse flags, call the library and print what it says."""

from __future__ import annotations

import sys

from octavo.cli.staying import staying


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and leave the process with its exit code; Ctrl-C in the imports too is
    Ctrl-C."""
    try:
        with staying():
            from octavo.cli import app

        app.main(arguments)
    except KeyboardInterrupt:
        sys.exit(130)
