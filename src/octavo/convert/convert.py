"""`convert`: a model of a GGUF file or a directory, written as a directory of its own.

Comes in: a path, what to change, where to write. A GGUF file's weights are dequantised and go by
the names and orders of its family in transformers; a directory's keep their names. What is written
is read again by what reads any directory before it takes its place, whole or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from octavo.batch import FloatArray
from octavo.convert.config_json import config_json, family_for
from octavo.convert.kv_heads import check_kv_heads, with_kv_heads
from octavo.convert.place import check_place, check_space, taking_place
from octavo.convert.tokenizer_json import check_reads, tokenizer_files
from octavo.convert.written_weights import Dtype, Rounding, nbytes, write_weights
from octavo.errors import ModelError, UnsupportedModelError
from octavo.model.config import ModelConfig
from octavo.program.ops import WeightSpec
from octavo.tokenizer import Tokenizer
from octavo.weights.dequantize import dequantize
from octavo.weights.hf.directory import CONFIG, files_of
from octavo.weights.hf.json_fields import read_json
from octavo.weights.hf.tensors import INDEX
from octavo.weights.model_files import naming
from octavo.weights.model_header import ModelHeader, read_header

_WEIGHTS = "model.safetensors"
# Octavo reads none of them; transformers does, and whoever passes the model on owes the licence.
_ALONG = (
    "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "tokenizer.model",
    "LICENSE", "LICENSE.txt", "LICENSE.md", "NOTICE",
)  # fmt: skip
_NORMS_WHOLE_ROWS = "olmo2"  # the architecture; others norm each head of q and k


@dataclass(frozen=True, slots=True)
class Converted:
    path: Path
    kv_heads: int
    kv_heads_before: int
    nbytes: int  # of the weights
    rounding: Rounding


def convert(
    source: Path, to: Path, *, kv_heads: int | None = None, dtype: Dtype = "bf16",
    force: bool = False,
) -> Converted:  # fmt: skip
    """Write the model at `source` to the directory `to`, with `kv_heads` KV heads if that is given.

    Raises UsageError for another number of heads than can be had and for a place that is taken,
    ModelError for a model that cannot be written so, and where the system cannot.
    """
    check_place(source, to, force=force)
    header = read_header(source)
    weights = header.program().weights()  # a model that is not run is refused, with the reason
    before = header.config.kv_heads
    after = before if kv_heads is None else kv_heads
    check_kv_heads(header.config, after)
    with naming(source):
        tokenizer = None if source.is_dir() else Tokenizer.from_spec(header.tokenizer_spec())
        files = _files(header, tokenizer, after, dtype)
        names = weight_names(header, weights)
    shapes = {theirs: _shape(header, ours, after) for theirs, ours in names.items()}
    try:
        check_space(to, nbytes(shapes, dtype))
        with taking_place(to, force=force) as folder:
            for name, content in files.items():
                (folder / name).write_bytes(content)
            with (folder / _WEIGHTS).open("wb") as file, naming(source):
                rounding = write_weights(file, shapes, weight_values(header, names, after), dtype)
            _check_written(source, tokenizer, folder, after)
    except OSError as error:
        raise ModelError(f"{to} cannot be written: {error.strerror or error}") from None
    return Converted(to, after, before, nbytes(shapes, dtype), rounding)


def _files(
    header: ModelHeader, tokenizer: Tokenizer | None, kv_heads: int, dtype: Dtype
) -> dict[str, bytes]:
    """All files but the weights; those of a directory hold its tokenizer as it is."""
    stored = "float32" if dtype == "f32" else "bfloat16"
    readme = _readme(header, kv_heads, dtype).encode()
    if tokenizer is None:
        config = dict(read_json(header.path / CONFIG))
        config |= {"num_key_value_heads": kv_heads}
        config |= {("torch_dtype" if "torch_dtype" in config else "dtype"): stored}
        beside = {
            each.name: each.read_bytes()
            for each in (*files_of(header.path), *_along(header.path))
            if each.suffix != ".safetensors" and each.name != INDEX
        }
        return {**beside, CONFIG: _json(config), "README.md": readme}
    spec = tokenizer.spec
    made = config_json(replace(header.config, kv_heads=kv_heads))
    made |= {"bos_token_id": spec.bos_id, "eos_token_id": spec.eos_id, "torch_dtype": stored}
    texts = tokenizer_files(tokenizer, header.sampling())
    return {
        CONFIG: _json(made), **{name: text.encode() for name, text in texts.items()},
        "README.md": readme,
    }  # fmt: skip


def _along(path: Path) -> list[Path]:
    return [path / name for name in _ALONG if (path / name).is_file()]


def weight_names(header: ModelHeader, weights: Mapping[str, WeightSpec]) -> dict[str, str]:
    """Their name of each of the program's weights -> ours."""
    config, files = header.config, header.files
    header.parts(weights)  # raises where one is missing
    if not header.path.is_dir():
        family = family_for(config)
        return {family.their_name(ours): ours for ours in weights}
    if config.mixture:
        raise UnsupportedModelError("KV heads cannot be changed in a model with experts")
    if config.uneven:
        raise UnsupportedModelError("KV heads cannot be changed where layers differ in size")
    if files.views(config) or "text_config" in read_json(header.path / CONFIG):
        raise UnsupportedModelError(
            "KV heads cannot be changed where a tensor holds several weights, nor in the text part "
            "of a larger model"
        )
    return {files.tensor_name(ours): ours for ours in weights}


def _is_kv(name: str, config: ModelConfig) -> bool:
    """Whether it has rows for each KV head; a norm of q and k does where it is of the whole row."""
    part = name.split(".")[-2]
    return part in ("attn_k", "attn_v") or (
        part == "attn_k_norm" and config.architecture == _NORMS_WHOLE_ROWS
    )


def _shape(header: ModelHeader, name: str, kv_heads: int) -> tuple[int, ...]:
    rows, *columns = header.tensors[name].shape
    if _is_kv(name, header.config):
        rows = rows // header.config.kv_heads * kv_heads
    return (rows, *columns)


def weight_values(
    header: ModelHeader, names: Mapping[str, str], kv_heads: int
) -> Iterator[FloatArray]:
    """The weights as they are written, one after the other."""
    with header.files.open_tensors() as file:
        for name in names.values():
            header.check_unchanged()  # to read beyond the end of a file that was cut kills
            info = file.tensors[name]
            values = dequantize(info.type, file.data(name), info.shape)
            file.drop(name)
            if not header.path.is_dir():
                values = _theirs(name, values, header.config)
            if _is_kv(name, header.config) and kv_heads != header.config.kv_heads:
                values = with_kv_heads(values, header.config.kv_heads, kv_heads)
            yield values
    header.check_unchanged()


def _theirs(name: str, values: FloatArray, config: ModelConfig) -> FloatArray:
    """A GGUF file's weight as transformers has it: a head's rotated pairs half a head apart, norms
    without what the family adds to them."""
    if name.endswith("norm.weight"):
        return values - np.float32(family_for(config).norm_offset)
    if config.rope_style == "interleaved" and name.split(".")[-2] in ("attn_q", "attn_k"):
        pairs = values.reshape(-1, config.head_dim // 2, 2, *values.shape[1:])
        return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(values.shape)
    return values


def _check_written(source: Path, tokenizer: Tokenizer | None, folder: Path, kv_heads: int) -> None:
    header = read_header(folder)
    header.parts(header.program().weights())
    assert header.config.kv_heads == kv_heads
    if tokenizer is not None:
        with naming(source):
            check_reads(tokenizer, header.tokenizer_spec())


def _readme(header: ModelHeader, kv_heads: int, dtype: Dtype) -> str:
    before = header.config.kv_heads
    lines = [f"# {header.files.name or header.path.name}", ""]
    lines.append(f"Made of `{header.path.name}` by `octavo convert`: weights as {dtype}.")
    if kv_heads < before:
        lines.append(
            f"K and V of {before} heads were averaged to {kv_heads}: a start for further training, "
            "whose answers are worse until then."
        )
    elif kv_heads > before:
        lines.append(f"K and V of {before} heads were copied to {kv_heads}: the same answers.")
    return "\n".join(lines) + "\n"


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode()
