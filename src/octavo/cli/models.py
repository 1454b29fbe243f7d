"""`octavo pull` and `octavo list`: the library models, and which of them are here. What comes from
the hub is pulled too, and of what is in its cache those that run are listed; so are packed weights
that are kept."""

from __future__ import annotations

import time
from typing import Annotated

from octavo.cli import loading
from octavo.cli.command import Argument, Group
from octavo.cli.figures import columns, size
from octavo.cli.flags import AsJson
from octavo.cli.screen import Screen
from octavo.environment import home
from octavo.weights.hub.name import PREFIX
from octavo.weights.library import LIBRARY, cached_from_hub, find_library_model
from octavo.weights.pack_cache import LIMIT, KeptPack, kept_packs

Name = Annotated[
    str,
    Argument(
        metavar="NAME",
        help=f"One of: {', '.join(LIBRARY)}; or hf:owner/name[@revision][:file.gguf].",
    ),
]


def register(app: Group) -> None:
    app.add("pull", pull)
    app.add("list", list_models)


def pull(name: Name, *, json: AsJson = False) -> None:
    """Fetch a library model, or one from the hub, whole and checked.

    What comes from the hub lies in huggingface_hub's cache ($HF_HOME), as other programs keep it.
    """
    screen = Screen(json)
    if name.startswith(PREFIX):
        path = loading.fetch_from_hub(name)
        screen.say(f"{name} is here: {path}")
        screen.result({"name": name, "path": str(path)})
        return
    model = find_library_model(name)
    if model.unsupported:
        screen.note(f"octavo: {name} cannot be run: {model.unsupported}")
    was_here = model.is_whole(home())
    if model.is_damaged(home()):
        screen.note(f"octavo: {name} is damaged here and is fetched again")
    path = model.path(home()) if was_here else loading.pull(name)
    screen.say(f"{name} {'was here already' if was_here else 'is here'}: {path}")
    screen.result(
        {
            "name": name,
            "path": str(path),
            "bytes": model.nbytes,
            "sha256": model.sha256,
            "supported": not model.unsupported,
            "downloaded": not was_here,
        }
    )


def list_models(*, json: AsJson = False) -> None:
    """List the library models: which are here, and which run. Then the models that run in
    huggingface_hub's cache, and the packed weights that are kept."""
    screen = Screen(json)
    rows, found = [["NAME", "SIZE", "HERE", "RUNS"]], []
    for model in LIBRARY.values():
        here, damaged = model.is_installed(home()), model.is_damaged(home())
        state = "damaged" if damaged else "yes" if here else "no"
        runs = "no" if model.unsupported else "yes"
        rows.append([model.name, size(model.nbytes), state, runs])
        found.append(
            {
                "name": model.name,
                "bytes": model.nbytes,
                "installed": here,
                "damaged": damaged,
                "supported": not model.unsupported,
                "path": str(model.path(home())) if here else None,
            }
        )
    for cached in cached_from_hub():
        rows.append([cached.name, size(cached.nbytes), "yes", "yes"])
        found.append(
            {
                "name": cached.name,
                "bytes": cached.nbytes,
                "installed": True,
                "damaged": False,
                "supported": True,
                "path": str(cached.path),
            }
        )
    screen.say(columns(rows, indent=""))
    packed = [(_name_of(each), each) for each in kept_packs(home())]
    if packed:
        kept = [[name, size(each.nbytes), _day(each.used)] for name, each in packed]
        total = ["all, of at most " + size(LIMIT), size(sum(each.nbytes for _, each in packed)), ""]
        screen.say()
        screen.say(columns([["PACKED WEIGHTS OF", "SIZE", "LAST USED"], *kept, total], indent=""))
    screen.result(
        {
            "home": str(home()),
            "models": found,
            "packed": [
                {"model": name, "path": str(each.path), "bytes": each.nbytes, "used": each.used}
                for name, each in packed
            ],
            "packed_limit": LIMIT,
        }
    )


def _name_of(kept: KeptPack) -> str:
    """The library name of a model, or its path when its weights were packed."""
    names = {str(model.path(home()).absolute()): name for name, model in LIBRARY.items()}
    return names.get(kept.model, kept.model) or kept.path.name


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
