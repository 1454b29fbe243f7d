"""`octavo inspect`: what is in a model's file, from its header alone."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from octavo.cli.command import Flag, Group
from octavo.cli.figures import columns, count, pairs, size
from octavo.cli.flags import AsJson, KVDtype, Model, planned_config
from octavo.cli.loading import find_or_pull
from octavo.cli.screen import Screen
from octavo.config import EngineConfig
from octavo.errors import UnsupportedModelError, counted
from octavo.model.mixture import Mixture
from octavo.planning.experts import active_bytes
from octavo.planning.memory import page_formats
from octavo.program.kv_bytes import kv_bytes_by_group
from octavo.protocol.tools.formats import tool_format_of
from octavo.weights.model_header import ModelHeader, read_header
from octavo.weights.packed_formats import choices, in_file_bytes

WithTemplate = Annotated[bool, Flag("--template", help="Print the model's chat template as well.")]


def register(app: Group) -> None:
    app.add("inspect", inspect)


def inspect(
    model: Model,
    *,
    kv_dtype: KVDtype = "bf16",
    template: WithTemplate = False,
    json: AsJson = False,
) -> None:
    """Say what a model's file holds.

    Sizes, tensor types, tokenizer, template, KV a token; from the file's header alone.
    """
    screen = Screen(json)
    config = planned_config(kv_dtype)
    path = find_or_pull(model)
    try:
        header = read_header(path)
    except UnsupportedModelError as error:  # its format or a tensor's type, before its config
        if path.is_dir():
            raise
        reason = str(error).removeprefix(f"{path}: ")
        screen.say(pairs([("file", str(path)), ("runs", f"not supported: {reason}")]))
        screen.result({"model": model, "path": str(path), "supported": False, "reason": reason})
        return
    found = describe(model, header, config)
    screen.say(as_text(found))
    if template:
        screen.say(f"\n{found['chat_template'] or 'no chat template'}")
    screen.result(found)


def describe(model: str, header: ModelHeader, config: EngineConfig) -> dict[str, Any]:
    cfg, reasons = header.config, list[str]()
    per_token, beyond_window, template = None, None, None
    in_memory: dict[str, float] = {}
    active: dict[str, float] = {}
    in_file = 0.0
    tokenizer: dict[str, Any] = {"kind": header.files.tokenizer_kind, "pre": None, "add_bos": None}
    with _noting(reasons, header):
        program = header.program()
        for asked, each in choices(header, program.weights()).items():
            in_memory[asked or "as stored"] = sum(each.values())
            active[asked or "as stored"] = active_bytes(program, each)
        in_file = in_file_bytes(header, program.weights())
        by_group = kv_bytes_by_group(program, page_formats(program, config))
        per_token = sum(by_group)
        groups = zip(program.groups, by_group, strict=True)
        beyond_window = sum(nbytes for spec, nbytes in groups if not spec.window)
    with _noting(reasons, header):
        spec = header.tokenizer_spec()
        tokenizer = {"kind": spec.kind, "pre": spec.pre, "add_bos": spec.add_bos}
        template = spec.chat_template
    types = header.tensor_types().items()
    return {
        "model": model,
        "path": str(header.path),
        "bytes": header.files.nbytes(),
        "parts": [str(each) for each in header.files.weight_files()],
        "name": header.files.name,
        "architecture": cfg.architecture,
        "supported": not reasons,
        "reason": reasons[0] if reasons else None,
        "parameters": sum(math.prod(info.shape) for info in header.tensors.values()),
        "layers": cfg.num_layers,
        "hidden_size": cfg.hidden_size,
        "ffn_size": cfg.ffn_size,
        "experts": _experts(cfg.mixture),
        "heads": cfg.heads,
        "kv_heads": cfg.kv_heads,
        "head_dim": cfg.head_dim,
        "windowed_kv_heads": cfg.uneven.windowed_kv_heads if cfg.uneven else None,
        "windowed_head_dim": cfg.uneven.windowed_head_dim if cfg.uneven else None,
        "latent_row": cfg.latent.stored if cfg.latent else None,
        "layers_without_kv": cfg.uneven.sharing if cfg.uneven else 0,
        "ffn_size_without_kv": cfg.ffn_size * cfg.uneven.ffn_factor_of_sharing
        if cfg.uneven and cfg.uneven.sharing
        else None,
        "stored_head_dim": cfg.stored_head_dim,
        "vocab_size": cfg.tokens,
        "tied_head": cfg.tied_head,
        "context": cfg.context,
        "window": cfg.window or None,
        "assumed": list(cfg.assumed),
        "kv_bytes_per_token": per_token,
        "kv_bytes_per_token_beyond_window": beyond_window,
        "weight_bytes": in_memory,
        "active_weight_bytes": active,
        "in_file_bytes": in_file,
        "tensor_types": {name: {"tensors": n, "bytes": nbytes} for name, (n, nbytes) in types},
        "tokenizer": tokenizer,
        "chat_template": template,
        "tool_format": tool_format_of(template).name if template is not None else None,
    }


def as_text(found: dict[str, Any]) -> str:
    kinds = [["type", "tensors", "bytes"]]
    for name, each in found["tensor_types"].items():
        kinds.append([name, f"{each['tensors']:,}", size(each["bytes"])])
    tokenizer = found["tokenizer"]
    heads = f"{found['heads']}, KV heads {found['kv_heads']}, of {found['head_dim']}"
    if found["latent_row"]:
        heads = f"{found['heads']} of {found['head_dim']}, one latent row of {found['latent_row']}"
    if found["stored_head_dim"] != found["head_dim"]:
        heads += f", filled up to {found['stored_head_dim']}"
    if found["windowed_head_dim"]:
        heads += (
            f"; in windowed layers {found['windowed_kv_heads']} of {found['windowed_head_dim']}"
        )
    rows = [
        ("file", f"{found['path']}, {size(found['bytes'])}"),
        *([("parts", _in_short(found["parts"]))] if len(found["parts"]) > 1 else []),
        ("name", str(found["name"] or "not given")),
        ("architecture", found["architecture"]),
        ("parameters", count(found["parameters"])),
        ("layers", _layers(found)),
        *([("experts", _experts_text(found["experts"]))] if found["experts"] else []),
        ("heads", heads),
        (
            "vocabulary",
            f"{found['vocab_size']:,}, head {'tied' if found['tied_head'] else 'untied'}",
        ),
        ("context", counted(found["context"], "token")),
        *([("window", f"{found['window']:,} tokens")] if found["window"] else []),
        *([("assumed", ", ".join(found["assumed"]))] if found["assumed"] else []),
        ("tokenizer", ", ".join(filter(None, (tokenizer["kind"], tokenizer["pre"])))),
        ("template", "yes" if found["chat_template"] else "no"),
        *([("tool calls", found["tool_format"])] if found["tool_format"] else []),
    ]
    if found["weight_bytes"]:
        rows.append(("weights", _sizes(found["weight_bytes"])))
        if found["experts"]:
            rows.append(("a token reads", _sizes(found["active_weight_bytes"])))
    if found["in_file_bytes"]:
        text = f"{size(found['in_file_bytes'])}, which stay in the file: rows are read as they come"
        rows.append(("embeddings of layers", text))
    if found["kv_bytes_per_token"] is not None:
        text = size(found["kv_bytes_per_token"])
        if found["window"]:
            text += f", {size(found['kv_bytes_per_token_beyond_window'])} beyond the window"
        if found["layers_without_kv"]:
            text += f"; the last {counted(found['layers_without_kv'], 'layer')} read earlier ones'"
        rows.append(("KV a token", text))
    if not found["supported"]:
        rows.append(("runs", f"not supported: {found['reason']}"))
    return f"{pairs(rows)}\ntensors\n{columns(kinds)}"


def _layers(found: dict[str, Any]) -> str:
    text = f"{found['layers']}, hidden {found['hidden_size']:,}, FFN {found['ffn_size']:,}"
    if found["ffn_size_without_kv"] in (None, found["ffn_size"]):
        return text
    return f"{text}, of the last {found['layers_without_kv']} {found['ffn_size_without_kv']:,}"


def _experts(mixture: Mixture | None) -> dict[str, int] | None:
    if mixture is None:
        return None
    return {
        "count": mixture.experts,
        "used": mixture.used,
        "ffn_size": mixture.ffn_size,
        "layers": sum(mixture.sparse),
        "shared_ffn_size": mixture.shared_ffn_size,
    }


def _experts_text(found: dict[str, int]) -> str:
    text = f"{found['count']:,} of FFN {found['ffn_size']:,} in {counted(found['layers'], 'layer')}"
    text += f", a token uses {found['used']}"
    return text + (f"; beside them FFN {shared:,}" if (shared := found["shared_ffn_size"]) else "")


def _sizes(nbytes: dict[str, float]) -> str:
    return ", ".join(f"{name} {size(each)}" for name, each in nbytes.items())


def _in_short(parts: Sequence[str]) -> str:
    names = [Path(each).name for each in parts]
    listed = ", ".join(names) if len(names) < 4 else f"{names[0]} to {names[-1]}"
    return f"{len(names)}: {listed}"


@contextlib.contextmanager
def _noting(reasons: list[str], header: ModelHeader) -> Iterator[None]:
    """Take what Octavo does not run as a reason, not an error: inspect still shows the file."""
    try:
        yield
    except UnsupportedModelError as error:
        reasons.append(str(error).removeprefix(f"{header.path}: "))
