"""The command line, `octavo …`: verbs that parse flags, call the library and print what it says."""

from __future__ import annotations

from octavo.cli.app import main

__all__ = ["main"]
