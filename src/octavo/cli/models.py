"""`octavo pull` and `octavo list`: the library models, and which of them are here."""

from __future__ import annotations

from typing import Annotated

import typer

from octavo.cli import loading
from octavo.cli.figures import columns, size
from octavo.cli.flags import AsJson
from octavo.cli.screen import Screen
from octavo.config import home
from octavo.weights.library import LIBRARY, find_library_model

Name = Annotated[str, typer.Argument(metavar="NAME", help=f"One of: {', '.join(LIBRARY)}.")]


def register(app: typer.Typer) -> None:
    app.command("pull")(pull)
    app.command("list")(list_models)


def pull(name: Name, *, json: AsJson = False) -> None:
    """Fetch a library model, whole and checked, or not at all."""
    screen = Screen(json)
    model = find_library_model(name)
    was_here = model.is_installed(home())
    path = model.path(home()) if was_here else loading.pull(name)
    screen.say(f"{name} {'was here already' if was_here else 'is here'}: {path}")
    screen.result(
        {
            "name": name,
            "path": str(path),
            "bytes": model.nbytes,
            "sha256": model.sha256,
            "downloaded": not was_here,
        }
    )


def list_models(*, json: AsJson = False) -> None:
    """List the library models and say which are on this machine."""
    screen = Screen(json)
    rows, found = [["NAME", "SIZE", "HERE"]], []
    for model in LIBRARY.values():
        here = model.is_installed(home())
        rows.append([model.name, size(model.nbytes), "yes" if here else "no"])
        found.append(
            {
                "name": model.name,
                "bytes": model.nbytes,
                "installed": here,
                "path": str(model.path(home())) if here else None,
            }
        )
    screen.say(columns(rows, indent=""))
    screen.result({"home": str(home()), "models": found})
