"""Says in tokenizer.json, and the files beside it, what a `TokenizerSpec` says.

Comes in: a spec read from a GGUF file. Goes out: files' texts by name. Knows no weights.
`check_reads` holds what was written against the tokenizer, by tokens of all kinds.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import tokenizers

from octavo.errors import UnsupportedModelError
from octavo.sampling_params import Sampling
from octavo.tokenizer import Tokenizer, kept_merges
from octavo.tokenizer.bpe import composes, ignores_merges
from octavo.tokenizer.pre_tokenizer import pre_tokenizer
from octavo.tokenizer.spec import TokenizerSpec
from octavo.tokenizer.spm import SPACE

_SAMPLE_IDS = 4000  # tokens of a text that both tokenizers must cut alike
_ANY_TEXT = (
    "Zürich, 3 °C -- 12,345.67 €!\n\n\tif (a<=b) { x += 'naïve'; }  # 你好 мир 🙂🙃\r\n   end"
)


def tokenizer_files(tokenizer: Tokenizer, sampling: Sampling | None) -> dict[str, str]:
    """Return tokenizer.json, tokenizer_config.json, generation_config.json and the template."""
    spec = tokenizer.spec
    names = {"bos": spec.bos_id, "eos": spec.eos_id, "unk": spec.unk_id, "pad": spec.pad_id}
    said: dict[str, Any] = {
        f"{name}_token": _name(spec, i) for name, i in names.items() if i is not None
    }
    said["tokenizer_class"] = "PreTrainedTokenizerFast"
    # transformers before 4.45 else takes blanks before punctuation away as it decodes
    said["clean_up_tokenization_spaces"] = False
    if spec.named_templates:
        templates = {"default": spec.chat_template, **spec.named_templates}
        said["chat_template"] = [
            {"name": name, "template": text} for name, text in templates.items() if text
        ]
    files = {
        "tokenizer.json": _text(_tokenizer_json(spec)),
        "tokenizer_config.json": _text(said),
        "generation_config.json": _text(
            {"eos_token_id": sorted(tokenizer.eos_ids), **_recommended(sampling)}
        ),
    }
    if spec.chat_template is not None and not spec.named_templates:
        files["chat_template.jinja"] = spec.chat_template
    return files


def _recommended(sampling: Sampling | None) -> dict[str, Any]:
    if sampling is None:
        return {}
    if sampling.greedy:
        return {"do_sample": False, "repetition_penalty": sampling.repetition_penalty}
    names = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
    return {"do_sample": True, **{name: getattr(sampling, name) for name in names}}


def check_reads(ours: Tokenizer, written: TokenizerSpec) -> None:
    """Raise UnsupportedModelError unless both cut and mark texts alike."""
    spec, theirs = ours.spec, Tokenizer.from_spec(written)
    ids = np.random.default_rng(0).integers(0, len(spec.tokens), _SAMPLE_IDS).tolist()
    text = ours.decode([i for i in ids if not ours.is_control(i)]) + _ANY_TEXT
    marks = sorted(spec.control_ids - {spec.unk_id})  # which is no mark in a directory
    marked = "".join(spec.tokens[i] for i in marks[:200])
    alike = (
        ours.encode(text) == theirs.encode(text)
        and ours.encode(text, add_special=False) == theirs.encode(text, add_special=False)
        and ours.encode(marked, parse_special=True) == theirs.encode(marked, parse_special=True)
        and ours.eos_ids == theirs.eos_ids
        and spec.chat_template == written.chat_template
    )
    if not alike:
        raise UnsupportedModelError(
            "its tokenizer cuts a text into other tokens where it is written as a tokenizer.json"
        )


def _tokenizer_json(spec: TokenizerSpec) -> dict[str, Any]:
    unknown = None if spec.kind == "bpe" or spec.unk_id is None else _name(spec, spec.unk_id)
    vocab = {_name(spec, i): i for i in range(len(spec.tokens))}
    if len(vocab) < len(spec.tokens):
        raise UnsupportedModelError("two of its tokens have one name, which tokenizer.json forbids")
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": _added(spec), **_steps(spec), "post_processor": _post_processor(spec),
        "model": {
            "type": "BPE", "dropout": None, "unk_token": unknown,
            "continuing_subword_prefix": None, "end_of_word_suffix": None,
            "fuse_unk": spec.kind == "spm", "byte_fallback": spec.kind == "spm",
            "ignore_merges": ignores_merges(spec), "vocab": vocab, "merges": _merges(spec),
        },
    }  # fmt: skip


def _name(spec: TokenizerSpec, index: int) -> str:
    """Converters to GGUF spell the stand-in of blanks as a blank in user-defined pieces."""
    name = spec.tokens[index]
    return name.replace(" ", SPACE) if spec.kind == "spm" else name


def _added(spec: TokenizerSpec) -> list[dict[str, Any]]:
    special = {*spec.control_ids, *([] if spec.unk_id is None else [spec.unk_id])}
    return [
        {
            "id": i, "content": _name(spec, i), "single_word": False,
            "lstrip": i in spec.strip_left, "rstrip": i in spec.strip_right,
            "normalized": i not in special and spec.kind == "spm", "special": i in special,
        }
        for i in sorted({*special, *spec.user_defined_ids})
    ]  # fmt: skip


def _merges(spec: TokenizerSpec) -> list[list[str]]:
    if spec.merges is not None:
        return [merge.split(" ") for merge in spec.merges]
    left, right = kept_merges.load(spec, None).T.tolist()
    return [[_name(spec, a), _name(spec, b)] for a, b in zip(left, right, strict=True)]


def _steps(spec: TokenizerSpec) -> dict[str, Any]:
    """Normalizer, pre-tokenizer and decoder."""
    if spec.kind == "bpe":
        level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                 "use_regex": True}  # fmt: skip
        bare = tokenizers.Tokenizer(tokenizers.models.BPE())
        bare.pre_tokenizer = pre_tokenizer(spec.pre)
        return {
            "normalizer": {"type": "NFC"} if composes(spec) else None,
            "pre_tokenizer": json.loads(bare.to_str())["pre_tokenizer"],
            "decoder": level,
        }
    blanks = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    in_front = {"type": "Prepend", "prepend": SPACE}
    back: list[dict[str, Any]] = [
        {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
        {"type": "ByteFallback"}, {"type": "Fuse"},
    ]  # fmt: skip
    if not spec.add_space_prefix:
        return {"normalizer": blanks, "pre_tokenizer": None, "decoder": _sequence("decoders", back)}
    back.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    decoder = _sequence("decoders", back)
    if not spec.prefix_bare_only:
        normalizer = _sequence("normalizers", [in_front, blanks])
        return {"normalizer": normalizer, "pre_tokenizer": None, "decoder": decoder}
    scheme = "first" if spec.prefix_first_only else "always"
    space = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme, "split": False}
    return {"normalizer": None, "pre_tokenizer": space, "decoder": decoder}


def _post_processor(spec: TokenizerSpec) -> dict[str, Any] | None:
    def one(index: int) -> dict[str, Any]:
        return {"SpecialToken": {"id": _name(spec, index), "type_id": 0}}

    before = [spec.bos_id] if spec.add_bos and spec.bos_id is not None else []
    after = [spec.eos_id] if spec.add_eos and spec.eos_id is not None else []
    if not before and not after:
        return None
    single = [*map(one, before), {"Sequence": {"id": "A", "type_id": 0}}, *map(one, after)]
    pair = [*single, {"Sequence": {"id": "B", "type_id": 0}}, *map(one, after)]
    special = {
        _name(spec, i): {"id": _name(spec, i), "ids": [i], "tokens": [_name(spec, i)]}
        for i in (*before, *after)
    }
    return {
        "type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": special,
    }  # fmt: skip


def _sequence(inner: str, parts: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "Sequence", inner: parts}


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"
