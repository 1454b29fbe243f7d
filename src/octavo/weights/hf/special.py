"""What the files beside tokenizer.json say: BOS and EOS, what ends an answer, the template.

Comes in: the files' fields. Goes out: ids and a text. What nothing needs is noted and left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from octavo.errors import ModelFormatError
from octavo.tokenizer.spec import TokenizerSpec
from octavo.values import is_whole
from octavo.weights.hf.json_fields import Fields, shown_json
from octavo.weights.model_files import Note


def stated_ids(file: Fields | None, spec: TokenizerSpec, note: Note) -> dict[str, Any]:
    """Return bos_id, eos_id and pad_id as tokenizer_config.json has them; those that are put around
    every text, which `spec` has, stay. Whether they are, tokenizer.json says (as to transformers
    5)."""
    found: dict[str, Any] = {}
    if file is None:
        return found
    for side, own in (("bos", spec.bos_id), ("eos", spec.eos_id), ("pad", spec.pad_id)):
        name = _token_name(file, f"{side}_token")
        if own is not None or name is None:
            continue
        if name in spec.tokens:
            found[f"{side}_id"] = spec.tokens.index(name)
        else:
            note(f"{file.where}: {side}_token is {name!r}, which is no token: it is left out")
    for side, adds in (("bos", spec.add_bos), ("eos", spec.add_eos)):
        name = f"add_{side}_token"
        if file.has(name) and file.flag(name) != adds:
            does = "puts one" if adds else "puts none"
            note(
                f"{file.said(name)}, but the post_processor of tokenizer.json {does}, and so it is"
            )
    return found


def _token_name(file: Fields, name: str) -> str | None:
    match file.get(name):
        case None:
            return None
        case str(found) | {"content": str(found)}:
            return found
        case _:
            raise file.wrong(name, "a token")


def end_ids(file: Fields, size: int, note: Note) -> tuple[int, ...]:
    """The ids in its eos_token_id: one, or a list."""
    value = file.get("eos_token_id")
    ids = value if isinstance(value, list) else [value]
    if not all(is_whole(each) for each in ids):
        raise file.wrong("eos_token_id", "a whole number or a list of them")
    found = tuple(each for each in ids if 0 <= each < size)
    if len(found) < len(ids):
        note(f"{file.said('eos_token_id')}: what is no id of {size} tokens is left out")
    return found


def chat_templates(files: Mapping[str, Fields], jinja: str | None, note: Note) -> dict[str, str]:
    """Return templates by name, of chat_template.jinja, else chat_template.json, else
    tokenizer_config.json; one that has no name is `default`."""
    where, found = "chat_template.jinja", {} if jinja is None else {"default": jinja}
    for name in ("chat_template.json", "tokenizer_config.json"):
        if not found and name in files:
            where, found = name, _named(files[name], note)
    for name in [name for name, text in found.items() if not text.strip()]:
        del found[name]
        which = "" if name == "default" else f" {shown_json(name)}"
        note(f"{where}: the chat template{which} is blank: the model has none")
    return found


def _named(file: Fields, note: Note) -> dict[str, str]:
    """The field chat_template: a text, or a list of named ones."""
    value: Any = file.get("chat_template")
    if value is None or isinstance(value, str):
        return {} if value is None else {"default": value}
    found: dict[str, str] = {}
    for each in value if isinstance(value, list) else [value]:
        match each:
            case {"name": str(name), "template": str(text)} if each is not value:
                found[name] = text
            case _:
                raise ModelFormatError(
                    f"{file.name_of('chat_template')} is {shown_json(value)}: expected a text or a "
                    "list of named ones"
                )
    if "default" not in found:
        names = ", ".join(map(shown_json, sorted(found))) or "none"
        note(f"{file.name_of('chat_template')} has no default one: there are {names}")
    return found
