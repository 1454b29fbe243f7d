"""`octavo rm`: a library model and what is cached of it leave this machine; of other models only
what is cached does."""

from __future__ import annotations

from octavo.cli.command import Group
from octavo.cli.figures import size
from octavo.cli.flags import AsJson, Model
from octavo.cli.screen import Screen
from octavo.environment import home
from octavo.weights.removal import remove


def register(app: Group) -> None:
    app.add("rm", run)


def run(model: Model, *, json: AsJson = False) -> None:
    """Remove a library model and what is cached of it.

    Cached are its packed weights, its tokenizer and its checksum. Of a model given by path, or from
    the hub, the files stay, and what Octavo cached of it goes.
    """
    screen = Screen(json)
    removed = remove(model, home=home())
    nbytes = sum(each.nbytes for each in removed)
    for each in removed:
        screen.say(f"{each.what:<14}  {size(each.nbytes):>8}  {each.path}")
    screen.say(f"removed of {model}: {size(nbytes)} ({nbytes:,} bytes)")
    found = [{"what": r.what, "path": str(r.path), "bytes": r.nbytes} for r in removed]
    screen.result({"model": model, "removed": found, "bytes": nbytes})
