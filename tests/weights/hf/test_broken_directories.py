"""Directories that are not whole, or of models that are not run: one line says what and where."""

from __future__ import annotations

import contextlib
import copy
import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from octavo import LLM
from octavo.errors import ModelError
from octavo.model.registry import build_program
from octavo.tokenizer import Tokenizer
from octavo.weights.hf.config import model_config
from octavo.weights.hf.directory import open_directory
from octavo.weights.hf.families import FAMILIES
from octavo.weights.hf.json_fields import Fields
from octavo.weights.model_header import read_header
from octavo.weights.model_weights import reference_weights
from tests.families.directories import VARIANTS, config_of
from tests.weights.hf.written import changed, safetensors_bytes, write_json, write_model


def _index(path: Path, changes: dict[str, Any]) -> None:
    where = path / "model.safetensors.index.json"
    found = json.loads(where.read_text())
    where.write_text(json.dumps({"weight_map": {**found["weight_map"], **changes}}))


def _sharded(path: Path) -> None:
    header = read_header(path)
    drawn = reference_weights(header, header.program().weights())
    (path / "model.safetensors").unlink()
    write_model(path, header.config, drawn, shards=2)


def _cut(path: Path) -> None:
    _sharded(path)
    shard = path / SHARD
    shard.write_bytes(shard.read_bytes()[:-4])


def _twice(path: Path) -> None:
    _sharded(path)
    norm = {"dtype": "F32", "shape": [64], "data_offsets": [0, 256]}
    data = safetensors_bytes({"model.embed_tokens.weight": norm}, bytes(256))
    (path / SHARD).write_bytes(data)


def _in_index(changes: dict[str, Any]) -> Callable[[Path], None]:
    def breaking(path: Path) -> None:
        _sharded(path)
        _index(path, changes)

    return breaking


def _rename(old: str, new: str) -> Callable[[Path], object]:
    return lambda path: (path / old).rename(path / new)


def _fields(file: str, **changes: Any) -> Callable[[Path], None]:
    return lambda path: changed(path, file, **changes)


def _without(*names: str, sharded: bool = False) -> Callable[[Path], None]:
    def breaking(path: Path) -> None:
        if sharded:
            _sharded(path)
        for name in names:
            (path / name).unlink()

    return breaking


def _bad_shape(path: Path) -> None:
    header = read_header(path)
    drawn = reference_weights(header, header.program().weights())
    write_model(path, header.config, {**drawn, "blk.0.attn_k.weight": drawn["blk.0.attn_q.weight"]})


SHARD = "model-00002-of-00002.safetensors"
INDEX = "model.safetensors.index.json"
NORM = "model.layers.0.input_layernorm.weight"
IN_INDEX = "{path}/" + INDEX + ": tensor '" + NORM + "' is in "
OTHER = "expected a safetensors file of this directory"
BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (_without("config.json"), "{path} has no config.json: give a model directory in "
                  "Hugging Face's layout, or the path of a GGUF file"),
    "no JSON": (lambda path: (path / "config.json").write_text("{"), "{path}/config.json is not "
                "JSON: Expecting property name enclosed in double quotes at line 1, column 2"),
    "a field twice": (lambda path: (path / "config.json").write_text('{"a": 1, "a": 2}'),
                      "{path}/config.json: 'a' is there twice"),
    "a field missing": (_fields("config.json", hidden_size=...), "{path}: config.json: hidden_size "
                        "is missing: expected a whole number from 1"),
    "quantised": (_fields("config.json", quantization_config={"quant_method": "awq"}),
                  "{path}: config.json: quantization_config says that the weights are quantised by "
                  "awq: Octavo reads F32, F16 and BF16"),
    "an encoder": (_fields("config.json", architectures=["BertModel"]), "{path}: 'BertModel' has no"
                   f" decoder, so it writes no text; {', '.join(FAMILIES)} are run"),
    "pytorch": (_rename("model.safetensors", "pytorch_model.bin"), "{path} has its weights in "
                "pytorch_model.bin: convert them to safetensors"),
    "no weights": (_without("model.safetensors"), "{path} has no model.safetensors and no "
                   "model.safetensors.index.json"),
    "an adapter": (_rename("config.json", "adapter_config.json"), "{path} is a LoRA adapter: Octavo"
                   " runs whole models"),
    "GGUF": (_rename("config.json", "a.gguf"), "{path} has no config.json; give the path of a GGUF "
             "file in it: a.gguf"),
    "tokenizer.model": (_rename("tokenizer.json", "tokenizer.model"), "{path}: there is no "
                        "tokenizer.json, only tokenizer.model: save it again with the fast "
                        "tokenizer"),
    "ends": (_fields("generation_config.json", eos_token_id="</s>"), "{path}: generation_config"
             '.json: eos_token_id is "</s>": expected a whole number or a list of them'),
    "whole and index": (lambda path: write_json(path / INDEX, {}), "{path} has model.safetensors "
                        "and model.safetensors.index.json: one is of another model; take it away"),
    "shard missing": (_without(SHARD, sharded=True), "cannot open {path}/" + SHARD + ": No such "
                      "file or directory"),
    "shard cut": (_cut, "{path}/" + SHARD + ": tensor 'model.norm.weight': bytes 123,392 to "
                  "123,648, but the file has 123,644 after its header"),
    "in two shards": (_twice, "{path}: tensor 'model.embed_tokens.weight' is in "
                      "model-00001-of-00002.safetensors and " + SHARD),
    "outside": (_in_index({NORM: "../a.safetensors"}), IN_INDEX + '"../a.safetensors": ' + OTHER),
    "no safetensors": (_in_index({NORM: "config.json"}), IN_INDEX + '"config.json": ' + OTHER),
    "no name of a file": (_in_index({NORM: "\ud800.safetensors"}),
                          IN_INDEX + '"\ud800.safetensors": ' + OTHER),
    "not in its shard": (_in_index({"more": SHARD}), "{path}/" + SHARD + ": tensor 'more' is "
                         "missing, which " + INDEX + " says it has"),
    "shape": (_bad_shape, "{path}: tensor 'model.layers.0.self_attn.k_proj.weight' of "
              "model.safetensors at offset {offset}: expected shape (32, 64), found (64, 64)"),
    "a tensor missing": (_fields("config.json", num_hidden_layers=3), "{path}: tensor "
                         "'model.layers.2.input_layernorm.weight' is missing: expected shape "
                         "(64,)"),
    "more layers": (_fields("config.json", num_hidden_layers=1), "{path}: tensor 'model.layers.1."
                    "input_layernorm.weight' of model.safetensors at offset {offset} has no place "
                    "in the 1 layer of a llama model as Octavo runs it: leaving it out would change"
                    " the answers"),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_directory_is_refused_in_one_line(tiny: Path, what: str) -> None:
    breaking, said = BROKEN[what]
    breaking(tiny)
    with pytest.raises(ModelError) as refused:
        LLM(tiny, threads=1)
    words = str(refused.value).split()
    offset = words[words.index("offset") + 1].rstrip(":") if "offset" in words else ""
    assert str(refused.value) == said.format(path=tiny, offset=offset)


ODD: tuple[object, ...] = (
    None,
    True,
    -1,
    0,
    1 << 70,
    1.5,
    1e-320,
    math.nan,
    math.inf,
    "x",
    "",
    [],
    [[]],
    {"a": 1},
)


LONG = ("vocab", "merges", "layer_types", "short_factor", "long_factor", "no_rope_layers")


def _ways(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each value inside, but only to the first two of many."""
    yield way
    if isinstance(value, dict | list):
        inside = value.items() if isinstance(value, dict) else enumerate(value)
        for step, each in [*inside][: 2 if way and way[-1] in LONG else None]:
            yield from _ways(each, (*way, step))


def _with_each_value(values: Any, odds: Iterable[Any]) -> Iterator[Any]:
    """Values with one of the odd ones in place of each inside, one after the other."""
    for *way, last in [*_ways(values)][1:]:
        inner = values
        for step in way:
            inner = inner[step]
        kept = inner[last]
        for odd in odds:
            inner[last] = copy.deepcopy(odd)
            yield values
        inner[last] = kept


@pytest.mark.parametrize(
    "file", ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"]
)
def test_a_value_of_another_kind_anywhere_is_a_model_error_or_none(tiny: Path, file: str) -> None:
    llama3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
              "high_freq_factor": 4.0, "original_max_position_embeddings": 64}  # fmt: skip
    changed(tiny, "config.json", rope_scaling=llama3, rope_parameters=..., rope_theta=1e4,
            layer_types=["full_attention"] * 2)  # fmt: skip
    changed(tiny, "generation_config.json", temperature=0.5, top_k=3, eos_token_id=[1, 2])
    files = open_directory(tiny)
    build_program(files.config())
    files.tokenizer_spec(print)
    for found in _with_each_value(files.fields[file].values, ODD):
        each = replace(files, fields={**files.fields, file: Fields(file, found)})
        with contextlib.suppress(ModelError):
            build_program(each.config())
            each.sampling(print)
            Tokenizer.from_spec(each.tokenizer_spec(print))


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_value_of_another_kind_in_the_config_of_any_family_is_a_model_error_or_none(
    variant: str,
) -> None:
    for found in _with_each_value(config_of(variant), (*ODD, 2, 1e300, 1 << 31)):
        with contextlib.suppress(ModelError):
            config = model_config(Fields("config.json", found))
            build_program(config.for_context(config.context))


def test_a_value_of_another_kind_in_an_index_is_a_model_error(tiny: Path) -> None:
    _sharded(tiny)
    for odd in ODD:
        for found in ({"weight_map": odd}, {"weight_map": {NORM: odd}}):
            write_json(tiny / INDEX, found)
            with pytest.raises(ModelError):
                read_header(tiny)
