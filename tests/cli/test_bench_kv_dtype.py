"""`octavo bench kv-dtype` on a tiny model: its figures, and what a later start says of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from octavo.cli.loading import open_program
from octavo.config import EngineConfig
from octavo.kernels import KV_FORMATS
from octavo.planning.memory import kv_pages, page_formats
from octavo.weights import kv_verdicts
from octavo.weights.fingerprint import fingerprint
from tests.cli.result import GREEDY, Octavo, refused
from tests.cli.tiny_model import TINY, write_tiny_model
from tests.weights.gguf_bytes import U32, entry, u32


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "own.txt"
    path.write_text("The same few words, over and over. " * 8)
    return path


def test_every_dtype_has_figures_and_bytes_of_its_own(octavo: Octavo, text: Path) -> None:
    flags = ["--text", str(text), "--rounds", "1", "--threads", "1", "--kv-memory", "4M"]
    found = octavo("bench", "kv-dtype", TINY, *flags, "--json").json
    assert (found["bench"], found["model"], found["kv_memory"]) == ("kv-dtype", TINY, 4 << 20)
    by_dtype = {each["dtype"]: each for each in found["dtypes"]}
    assert sorted(by_dtype) == sorted([*KV_FORMATS, "k=int8,v=int4"])
    assert next(iter(by_dtype)) == "bf16"
    for each in by_dtype.values():
        assert each["sequences"] == (4 << 20) // round(each["token_bytes"] * found["window"])
        assert each["decode_tps"] > 0
    kl = {name: each["kl_mean"] for name, each in by_dtype.items()}
    assert kl["bf16"] == 0 < kl["int8"] < min(kl["int4"], kl["k=int8,v=int4"])


def test_int4_has_sinks_as_a_start_has_them_unless_it_is_to_have_none(
    octavo: Octavo, text: Path, home: Path
) -> None:
    flags = ["--text", str(text), "--rounds", "1", "--threads", "1", "--json"]
    results = [
        octavo("bench", "kv-dtype", TINY, *flags, *more).json for more in ((), ("--kv-sinks", "0"))
    ]
    found, bare = ({each["dtype"]: each for each in result["dtypes"]} for result in results)
    sinks = {"bf16": 0, "f32": 0, "int8": 0, "int4": 32, "k=int8,v=int4": 0}
    assert {dtype: each["sinks"] for dtype, each in found.items()} == sinks
    assert {each["sinks"] for each in bare.values()} == {0}
    program = open_program(TINY, None, EngineConfig())[1]
    config, window = EngineConfig(kv_dtype="int4"), results[0]["window"]
    rows = config.max_batch_tokens
    pages = kv_pages(program, 32, page_formats(program, config), max_rows=rows)
    assert found["int4"]["token_bytes"] * window == pages.bytes_of(window)
    kept = json.loads((home / "kv_dtypes.json").read_bytes())
    (dtypes,) = kept.values()
    assert {"int4", "int4+sinks", "k=int8,v=int4"} <= dtypes.keys()
    result = octavo("bench", "kv-dtype", TINY, "--kv-sinks", "40")
    assert result == refused("--kv-sinks 40: expected at most a block, which has 32 tokens")


def test_sequences_of_windowed_layers_are_counted_as_plan_does(octavo: Octavo, text: Path) -> None:
    """Such a layer holds its window and the rows of a step, which are max_batch_tokens."""
    key = "gemma3.attention.sliding_window"
    more = [entry(key, U32, u32(20)), entry(f"{key}_pattern", U32, u32(3))]
    long = entry("gemma3.context_length", U32, u32(1024))
    write_tiny_model(Path("windows.gguf"), layers=4, architecture="gemma3", more=[*more, long])
    text.write_text("The same few words, over and over. " * 40)
    flags = ["--text", str(text), "--rounds", "1", "--json"]
    found = octavo("bench", "kv-dtype", "windows.gguf", *flags).json
    assert found["window"] == 1024
    plain = EngineConfig()
    program, rows = open_program("windows.gguf", None, plain)[1], plain.max_batch_tokens
    split = {"full=int8,window=bf16", "full=int4,window=bf16"}
    assert split <= {each["dtype"] for each in found["dtypes"]}
    for each in found["dtypes"]:
        formats = page_formats(program, EngineConfig(kv_dtype=each["dtype"]))
        pages = kv_pages(program, 32, formats, max_rows=rows)
        assert each["token_bytes"] * 1024 == pages.bytes_of(1024)


def test_where_the_model_does_not_speak_the_text_there_is_no_verdict(
    octavo: Octavo, text: Path, home: Path
) -> None:
    result = octavo("bench", "kv-dtype", TINY, "--text", str(text), "--rounds", "1")
    assert "No verdict: the perplexity of bf16 is" in result.out
    assert kv_verdicts.verdict(home, fingerprint(Path(TINY), home=home), "int8") is None
    assert (home / "kv_dtypes.json").exists()


def test_a_start_with_a_dtype_that_was_not_safe_says_so_in_one_line(
    octavo: Octavo, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = {"int8": {"verdict": "not safe"}}
    kv_verdicts.keep(home, fingerprint(Path(TINY), home=home), kept)
    octavo("run", TINY, "a", "--raw", *GREEDY)
    assert caplog.messages == []
    octavo("run", TINY, "a", "--raw", "--kv-dtype", "int8", *GREEDY)
    (said,) = caplog.messages
    assert said.startswith("kv_dtype=int8 was measured as not safe for this model")


def test_a_text_that_cannot_be_read_is_one_line(octavo: Octavo, tmp_path: Path) -> None:
    missing, broken, short = tmp_path / "none", tmp_path / "broken", tmp_path / "short"
    broken.write_bytes(b"\xff\xfe\xff")
    short.write_text("")
    for path, why in (
        (missing, ": cannot be read: No such file or directory"),
        (broken, " is UTF-16: save it as UTF-8"),
    ):
        result = octavo("bench", "kv-dtype", TINY, "--text", str(path))
        assert result == refused(f"--text {path}{why}")
    result = octavo("bench", "kv-dtype", TINY, "--text", str(short))
    assert result == refused("--text: expected at least 2 tokens, got 0")


def test_a_model_of_nan_gets_figures_of_none_and_no_verdict(
    octavo: Octavo, text: Path, home: Path
) -> None:
    raw = Path(TINY).read_bytes()
    Path("nan.gguf").write_bytes(raw[:-64] + np.full(16, np.nan, "<f4").tobytes())
    flags = ["--text", str(text), "--rounds", "1", "--json"]
    result = octavo("bench", "kv-dtype", "nan.gguf", *flags)
    assert "No verdict: logits are NaN with bf16 too" in result.err
    for each in result.json["dtypes"]:
        assert each["perplexity"] is each["kl_mean"] is each["verdict"] is None
    assert kv_verdicts.warning(home, fingerprint(Path("nan.gguf"), home=home), "int8") is None
