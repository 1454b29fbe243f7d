"""`octavo inspect`: what is in a model's file, from its header alone."""

from __future__ import annotations

import math
from typing import Annotated, Any

import typer

from octavo.cli.figures import columns, count, pairs, size
from octavo.cli.flags import AsJson, KVDtype, Model, parse_kv_bits
from octavo.cli.loading import open_header
from octavo.cli.screen import Screen
from octavo.errors import UnsupportedModelError, counted
from octavo.model.registry import build_program
from octavo.program.cost import kv_bytes_per_token
from octavo.weights.model_header import ModelHeader

WithTemplate = Annotated[
    bool, typer.Option("--template", help="Print the model's chat template as well.")
]


def register(app: typer.Typer) -> None:
    app.command("inspect")(inspect)


def inspect(
    model: Model,
    *,
    kv_dtype: KVDtype = "bf16",
    template: WithTemplate = False,
    json: AsJson = False,
) -> None:
    """Say what a model's file holds: sizes, tensor types, tokenizer, template, KV a token."""
    screen = Screen(json)
    bits = parse_kv_bits(kv_dtype)
    found = describe(model, open_header(model), bits)
    screen.say(as_text(found))
    if template:
        screen.say(f"\n{found['chat_template'] or 'no chat template'}")
    screen.result(found)


def describe(model: str, header: ModelHeader, kv_bits: tuple[int, int]) -> dict[str, Any]:
    cfg, tokenizer = header.config, header.tokenizer_spec()
    per_token = _kv_per_token(header, kv_bits)
    types = header.tensor_types().items()
    return {
        "model": model,
        "path": str(header.path),
        "bytes": header.path.stat().st_size,
        "name": header.metadata.get("general.name"),
        "architecture": cfg.architecture,
        "supported": per_token is not None,
        "parameters": sum(math.prod(info.shape) for info in header.tensors.values()),
        "layers": cfg.num_layers,
        "hidden_size": cfg.hidden_size,
        "ffn_size": cfg.ffn_size,
        "heads": cfg.heads,
        "kv_heads": cfg.kv_heads,
        "head_dim": cfg.head_dim,
        "vocab_size": cfg.vocab_size,
        "tied_head": cfg.tied_head,
        "context": cfg.context,
        "kv_bytes_per_token": per_token,
        "tensor_types": {name: {"tensors": n, "bytes": nbytes} for name, (n, nbytes) in types},
        "tokenizer": {"kind": tokenizer.kind, "pre": tokenizer.pre, "add_bos": tokenizer.add_bos},
        "chat_template": tokenizer.chat_template,
    }


def as_text(found: dict[str, Any]) -> str:
    kinds = [["type", "tensors", "bytes"]]
    for name, each in found["tensor_types"].items():
        kinds.append([name, f"{each['tensors']:,}", size(each["bytes"])])
    tokenizer = found["tokenizer"]
    architecture = found["architecture"] + ("" if found["supported"] else " (not supported)")
    rows = [
        ("file", f"{found['path']}, {size(found['bytes'])}"),
        ("name", str(found["name"] or "not given")),
        ("architecture", architecture),
        ("parameters", count(found["parameters"])),
        (
            "layers",
            f"{found['layers']}, hidden {found['hidden_size']:,}, FFN {found['ffn_size']:,}",
        ),
        ("heads", f"{found['heads']}, KV heads {found['kv_heads']}, of {found['head_dim']}"),
        (
            "vocabulary",
            f"{found['vocab_size']:,}, head {'tied' if found['tied_head'] else 'untied'}",
        ),
        ("context", counted(found["context"], "token")),
        ("tokenizer", f"{tokenizer['kind']}, {tokenizer['pre']}"),
        ("template", "yes" if found["chat_template"] else "no"),
    ]
    if found["supported"]:
        rows.append(("KV a token", size(found["kv_bytes_per_token"])))
    return f"{pairs(rows)}\ntensors\n{columns(kinds)}"


def _kv_per_token(header: ModelHeader, kv_bits: tuple[int, int]) -> float | None:
    """None for an architecture that Octavo does not run: inspect still shows the file."""
    try:
        return kv_bytes_per_token(build_program(header.config), *kv_bits)
    except UnsupportedModelError:
        return None
