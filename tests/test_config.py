"""EngineConfig: names, ranges and units."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from octavo.config import EngineConfig, parse_bytes, parse_kv_dtype
from octavo.environment import home
from octavo.errors import UsageError


def test_kv_dtypes_are_chosen_together_or_apart() -> None:
    assert parse_kv_dtype("f32") == (("f32", "f32"),) * 2
    assert parse_kv_dtype("k=f32,v=bf16") == (("f32", "bf16"),) * 2
    assert parse_kv_dtype("v=f32,k=bf16") == (("bf16", "f32"),) * 2
    config = EngineConfig(kv_dtype="v=f32,k=bf16")
    assert (config.kv_dtype, config.kv_dtypes.full) == ("k=bf16,v=f32", ("bf16", "f32"))
    assert EngineConfig(kv_dtype="k=bf16,v=bf16") == EngineConfig()
    config = EngineConfig(kv_dtype="window=bf16,full=int8")
    assert config.kv_dtype == "full=int8,window=bf16"
    assert config.kv_dtypes == (("int8", "int8"), ("bf16", "bf16"))
    assert EngineConfig(kv_dtype="full=int8,window=int8").kv_dtype == "int8"
    wrong = ("f16", "k=f32", "k=f32,v", "k=f32,v=bf16,", "k=f32,v=int9", "k=f32,w=f32", "")
    groups = ("full=f32", "full=f32,v=f32", "full=f32,window=int9", "full=k=f32,v=f32")
    for bad in (*wrong, *groups, None, 3):
        with pytest.raises(UsageError, match=re.escape(f"kv_dtype={bad!r}")):
            parse_kv_dtype(bad)


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), (5, 5), ("2K", 2048), ("1.5GiB", 3 << 29), ("512m", 512 << 20), ("1 TB", 1 << 40)],
)
def test_bytes_have_units(text: object, size: int) -> None:
    assert parse_bytes("kv_memory", text) == size


@pytest.mark.parametrize(
    "text", ["", "x", "-1", 0, -5, True, "1Q", "0.1", None, 2**63, "9" * 400, "9999999T"]
)
def test_other_bytes_are_refused(text: object) -> None:
    with pytest.raises(UsageError, match="kv_memory="):
        parse_bytes("kv_memory", text)


@pytest.mark.parametrize(
    ("option", "message"),
    [({"context": 0}, "context=0: expected a whole number from 1"),
     ({"context": 1.5}, "context=1.5"),
     ({"block_size": 8}, "block_size=8: expected one of 16, 32, 64"),
     ({"kv_sinks": 4}, "kv_sinks=4: only int4 has sinks, where layers see all tokens, and kv"),
     ({"kv_sinks": 4, "kv_dtype": "k=int8,v=bf16"}, "kv_sinks=4: only int4 has sinks"),
     ({"kv_sinks": 33, "kv_dtype": "int4"}, "kv_sinks=33: expected at most a block, which has 32"),
     ({"kv_sinks": -1}, "kv_sinks=-1: expected a whole number from 0 to 64"),
     ({"sliding_context": 32}, "sliding_context=32: expected whole blocks of 32 tokens, at least"),
     ({"sliding_context": 16}, "sliding_context=16: expected a whole number from 32 to"),
     ({"sliding_context": 100}, "sliding_context=100: expected whole blocks of 32 tokens, at"),
     ({"sliding_context": 96, "block_size": 64}, "sliding_context=96: expected whole blocks of 64"),
     ({"sliding_context": 96, "sinks": 4}, "sinks=4: expected whole blocks of 32 tokens, at most"),
     ({"sliding_context": 96, "sinks": 96}, "sinks=96: expected whole blocks of 32 tokens, at most "
      "64, a block less than the sliding context"),
     ({"sinks": 32}, "sinks=32: they are those of a sliding context, and there is none"),
     ({"sliding_context": 96, "kv_cache": False}, "sliding_context=96 needs the KV cache: leave"),
     ({"sliding_context": 96, "kv_dtype": "int4"}, "sliding_context=96: with kv_dtype int4 the "
      "first tokens stay bf16, which a sliding context does not have: add kv_sinks=0, or choose"),
     ({"block_size": 32.0}, "block_size=32.0: expected one of 16, 32, 64"),
     ({"activations": "int4"}, "activations='int4': expected one of int8, bf16"),
     ({"kv_cache": 1}, "kv_cache=1: expected True or False"),
     ({"prefix_cache": "no"}, "prefix_cache='no': expected True or False"),
     ({"kv_idle": -1}, "kv_idle=-1: expected a number from 0"),
     ({"step_ms": 0}, "step_ms=0: expected a number above 0"),
     ({"eviction": "fifo"}, "eviction='fifo': expected one of lru, cost"),
     ({"schedule": "lifo"}, "schedule='lifo': expected one of fcfs, longest-prefix"),
     ({"max_waiting": 4}, "unknown option 'max_waiting'"),
     ({"k_dtype": "f32"}, "unknown option 'k_dtype'"),
     ({"max_num_seq": 3}, "did you mean max_num_seqs"),
     ({"zzz": 3}, "known: context,")],
)  # fmt: skip
def test_options_name_themselves(option: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        EngineConfig.parse(option)


@pytest.mark.parametrize(
    ("options", "sinks", "dtypes"),
    [
        ({}, 0, ("bf16", "bf16")),
        ({"kv_sinks": 0}, 0, ("bf16", "bf16")),
        ({"kv_dtype": "int8"}, 0, ("int8", "int8")),
        ({"kv_dtype": "int4"}, 32, ("int4+32", "int4+32")),
        ({"kv_dtype": "int4", "block_size": 16, "kv_sinks": 16}, 16, ("int4+16", "int4+16")),
        ({"kv_dtype": "k=int8,v=int4"}, 0, ("int8", "int4")),
        ({"kv_dtype": "k=int8,v=int4", "kv_sinks": 1}, 32, ("int8+32", "int4+32")),
        ({"kv_dtype": "full=int8,window=bf16"}, 0, ("full=int8,window=bf16",) * 2),
        ({"kv_dtype": "full=int4,window=bf16"}, 32, ("full=int4+32,window=bf16",) * 2),
        ({"kv_dtype": "full=bf16,window=int4"}, 0, ("full=bf16,window=int4",) * 2),
        ({"kv_dtype": "v=bf16,k=int4", "block_size": 64}, 64, ("int4+64", "bf16+64")),
        ({"kv_dtype": "int4", "kv_sinks": 0}, 0, ("int4", "int4")),
    ],
)
def test_sinks_are_a_block_where_k_is_int4_or_they_are_asked_for_and_cached_names_say_so(
    options: dict[str, object], sinks: int, dtypes: tuple[str, str]
) -> None:
    config = EngineConfig.parse(options)
    assert (config.kv_sink_tokens, config.page_dtypes) == (sinks, dtypes)


def test_a_sliding_context_keeps_a_block_of_the_beginning_unless_said() -> None:
    configs = (
        {"sliding_context": 64}, {"sliding_context": 128, "block_size": 64},
        {"sliding_context": 64, "sinks": 0}, {"sliding_context": 128, "sinks": 96},
        {"sliding_context": 96, "kv_dtype": "int4", "kv_sinks": 0},
        {"sliding_context": 96, "kv_dtype": "k=int8,v=int4"},
    )  # fmt: skip
    assert [EngineConfig.parse(c).sliding_sinks for c in configs] == [32, 64, 0, 96, 32, 32]
    assert EngineConfig().sliding_context is None


def test_numbers_of_numpy_are_taken_and_none_is_the_default() -> None:
    numbers = {
        "context": np.int64(64), "kv_memory": np.uint64(4096), "kv_idle": np.float32(2.5),
        "block_size": np.int16(16), "kv_cache": np.bool_(False), "step_ms": np.float64(5),
    }  # fmt: skip
    given = EngineConfig.parse(numbers)
    plain = EngineConfig.parse(
        {"context": 64, "kv_memory": 4096, "kv_idle": 2.5, "block_size": 16, "kv_cache": False,
         "step_ms": 5.0}
    )  # fmt: skip
    assert given == plain
    assert repr(given) == repr(plain)
    unset = {f.name for f in fields(EngineConfig)} - {"step_ms"}
    assert EngineConfig.parse(dict.fromkeys(unset)) == EngineConfig()
    # Numbers may have no end.
    config = EngineConfig.parse({"kv_idle": float("inf"), "step_ms": None})
    assert (config.kv_idle, config.step_ms) == (float("inf"), None)
    assert EngineConfig.parse({"step_ms": 1}).step_ms == 1
    assert EngineConfig.parse({}).prefix_cache is True
    assert EngineConfig.parse({"prefix_cache": False, "kv_cache": False}).kv_cache is False


def test_home_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("OCTAVO_HOME", "~/models")
    assert home() == Path("/home/someone/models")
    monkeypatch.setenv("OCTAVO_HOME", "")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert home() == Path("/cache/octavo")
    for no_folder in ("", "cache"):
        monkeypatch.setenv("XDG_CACHE_HOME", no_folder)
        assert home() == Path("/home/someone/.cache/octavo")
