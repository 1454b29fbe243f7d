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


def chat_template(files: Mapping[str, Fields], jinja: str | None, note: Note) -> str | None:
    """From chat_template.jinja, else chat_template.json, else tokenizer_config.json."""
    where, found = "chat_template.jinja", jinja
    for name in ("chat_template.json", "tokenizer_config.json"):
        if found is None and name in files:
            where, found = name, _named(files[name], note)
    if found is None or found.strip():
        return found
    note(f"{where}: the chat template is blank: the model has none")
    return None


def _named(file: Fields, note: Note) -> str | None:
    """The field chat_template: a text, or a list of named ones of which `default` is taken."""
    value: Any = file.get("chat_template")
    if isinstance(value, list):
        named = [each for each in value if isinstance(each, dict)]
        value = next(
            (each.get("template") for each in named if each.get("name") == "default"), None
        )
        if value is None:
            names = ", ".join(sorted(shown_json(each.get("name")) for each in named)) or "none"
            note(f"{file.name_of('chat_template')} has no default one ({names}): it is left out")
    if value is not None and not isinstance(value, str):
        raise ModelFormatError(
            f"{file.name_of('chat_template')} is {shown_json(value)}: expected a text or a list of "
            "named ones"
        )
    return value
