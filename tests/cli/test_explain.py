"""`octavo explain`: the answers in plain numbers, as text and as JSON."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.result import Octavo, refused
from tests.cli.tiny_model import TINY, write_tiny_model
from tests.weights.gguf_bytes import U32, entry, u32

PARTS = ["qkv", "attention", "output", "mlp", "head", "embed, norms", "total"]
# The tiny model: 2 layers, h = 64, q 64 wide, k and v 32, FFN 96, vocabulary 258.
QKV = 2 * (2 * 64 * 128 + 3 * 96)  # with RoPE
OUTPUT = 2 * (2 * 64 * 64 + 64)
MLP = 2 * (3 * 2 * 64 * 96 + 4 * 96 + 64)
HEAD = 2 * 64 * 258


def test_the_text_says_what_the_cache_saves_and_what_it_costs(octavo: Octavo) -> None:
    text = octavo("explain", TINY, "--context", "100").out
    assert text.endswith(
        "What the cache saves for one new token:\n"
        "  Attention projections (Q, K, V, output): 100 times less, 2.49 MFLOPs a layer\n"
        "    become 24.9 kFLOPs:\n"
        "    K and V of the 99 tokens before are read, not computed again.\n"
        "  MLP: the same 100 times less, because only the new token passes through it.\n"
        "  Scores and their sums: 50.5 times less: one row of the triangle instead of all\n"
        "    of it.\n"
        "  Between blocks: s·h = 100 x 64 = 6,400 values (25 KiB) become h = 64 (256 B).\n"
        "  The head runs for one row either way. In all 72.1 times fewer FLOPs.\n"
        "What it costs: 256 B a token, 25 KiB at 100 tokens, all of it read for every new\n"
        "  token.\n"
    )
    assert max(map(len, text.splitlines())) == 80
    assert (
        "                no cache    share   cache    share  no cache / cache\n"
        "  qkv             3.33 M   21.8 %  33.3 k   15.7 %               100\n"
    ) in text


def test_json_has_every_part_with_and_without_the_cache_for_each_phase(octavo: Octavo) -> None:
    found = octavo("explain", TINY, "--context", "100", "--json").json
    for phase in ("decode", "prefill"):
        for side in ("without_cache", "with_cache"):
            parts = found[phase][side]
            assert list(parts) == PARTS
            for kind in ("flops", "bytes"):
                whole = sum(parts[p][kind] for p in PARTS[:-1])
                assert whole == pytest.approx(parts["total"][kind])
                assert sum(parts[p][f"{kind}_share"] for p in PARTS[:-1]) == pytest.approx(1)
    decode = found["decode"]
    flops = [decode["with_cache"][p]["flops"] for p in ("qkv", "output", "mlp", "head")]
    assert flops == [QKV, OUTPUT, MLP, HEAD]
    assert [decode["saved"][p] for p in PARTS[:5]] == [100, 50.5, 100, 100, 1]
    assert found["prefill"]["with_cache"]["qkv"]["flops"] == QKV
    assert found["prefill"]["with_cache"]["head"]["flops"] == HEAD / 100
    assert found["between_blocks"] == {
        "without_cache": {"values": 6400, "bytes": 25600},
        "with_cache": {"values": 64, "bytes": 256},
    }
    assert (found["kv_bytes_per_token"], found["kv_bytes"]) == (256, 25600)


def test_weights_are_read_once_a_forward_and_kv_as_wide_as_asked(octavo: Octavo) -> None:
    flags = ["--context", "100", "--kv-dtype", "f32", "--json"]
    found = octavo("explain", TINY, *flags).json["decode"]
    for side in ("without_cache", "with_cache"):
        assert found[side]["mlp"]["weight_bytes"] == 4 * 2 * 3 * 64 * 96
    # 100 tokens read and 1 written; without the cache 100 written, too
    assert found["with_cache"]["attention"]["kv_bytes"] == 512 * 101
    assert found["without_cache"]["attention"]["kv_bytes"] == 512 * 200
    # A context of one saves nothing.
    saved = octavo("explain", TINY, "--context", "1", "--json").json["decode"]["saved"]
    assert set(saved.values()) == {1}


def test_flags_out_of_range_are_refused(octavo: Octavo) -> None:
    for flag, value, complaint in [
        ("--context", "0", "0: expected a whole number from 1 to 16777216"),
        (
            "--kv-dtype",
            "f8",
            "'f8': expected one of f32, bf16, int8, int4, or k=…,v=… or full=…,window=… of them",
        ),
    ]:
        assert octavo("explain", TINY, flag, value) == refused(f"{flag} {complaint}")


def test_sinks_are_read_as_bf16(octavo: Octavo) -> None:
    """Of 100 tokens 32, unless there are to be none; those behind them are int4."""
    bf16, int4, bare = (
        octavo("explain", TINY, "--context", "100", *flags, "--json").json
        for flags in ((), ("--kv-dtype", "int4"), ("--kv-dtype", "int4", "--kv-sinks", "0"))
    )
    assert int4["kv_bytes_per_token"] == bare["kv_bytes_per_token"] < bf16["kv_bytes_per_token"]
    assert bare["kv_bytes"] == 100 * bare["kv_bytes_per_token"]
    want = 68 * bare["kv_bytes_per_token"] + 32 * bf16["kv_bytes_per_token"]
    assert int4["kv_bytes"] == want
    result = octavo("explain", TINY, "--kv-sinks", "4")
    assert result == refused(
        "--kv-sinks 4: only int4 has sinks, where layers see all tokens, and kv_dtype is bf16: "
        "expected kv_dtype int4, or k=…,v=int4"
    )


def test_windowed_layers_keep_their_window_and_that_is_read(octavo: Octavo, tmp_path: Path) -> None:
    """One layer of two sees all 100 tokens, the other 20; each keeps 128 B of one."""
    window = entry("gemma3.attention.sliding_window", U32, u32(20))
    pattern = entry("gemma3.attention.sliding_window_pattern", U32, u32(2))
    path = tmp_path / "windows.gguf"
    write_tiny_model(path, architecture="gemma3", more=[window, pattern])
    found = octavo("explain", str(path), "--context", "100", "--json").json
    assert (found["kv_bytes_per_token"], found["kv_bytes"]) == (256, 128 * (100 + 20))


def test_a_context_that_slides_is_said_and_bounds_what_is_read(octavo: Octavo) -> None:
    flags = ("--sliding-context", "64", "--context", "1000")
    text = octavo("explain", TINY, *flags).out
    said = "The context slides: in full layers a token sees 64 at most, of them the first 32."
    assert said in " ".join(text.split())
    slid, plain = (
        octavo("explain", TINY, *more, "--json").json for more in (flags, ("--context", "64"))
    )
    assert slid["kv_bytes"] == plain["kv_bytes"]
    assert slid["kv_bytes_per_token"] == plain["kv_bytes_per_token"]
    attention = [each["decode"]["with_cache"]["attention"]["flops"] for each in (slid, plain)]
    assert attention[0] == attention[1]
