"""`octavo plan`: the sizes that are well known, and what is said when they do not fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.result import Octavo, refused
from tests.cli.tiny_model import TINY
from tests.families.directories import config_of
from tests.weights.hf.written import write_json

LARGE = ["--layers", "32", "--hidden", "4096"]
LLAMA_7B = [*LARGE, "--heads", "32", "--ffn", "11008", "--vocab", "32000", "--kv-dtype", "f16"]
TOO_MUCH = (str(2**40 + 1), "9" * 400)
SMALL = ["--layers", "2", "--hidden", "8"]


def test_llama_7b_in_fp16_takes_half_a_mib_a_token_and_512_mib_at_1024(octavo: Octavo) -> None:
    assert octavo("plan", *LLAMA_7B, "--context", "1024").out == (
        "weights     12.6 GiB\n"
        "KV a token  0.5 MiB\n"
        "KV a user   512 MiB at 1,024 tokens\n"
        "KV          512 MiB for 1 user\n"
        "process     143 MiB at most\n"
        "total       13.2 GiB\n"
    )
    found = octavo("plan", *LLAMA_7B, "--weights-bits", "4.5", "--json").json
    assert found["weight_bytes"] == 6_738_415_616 * 4.5 / 8


def test_32_of_2048_tokens_in_float32_take_64_gib_from_layers_and_hidden(octavo: Octavo) -> None:
    flags = ["--kv-dtype", "f32", "--batch", "32", "--context", "2048"]
    result = octavo("plan", *LARGE, *flags, "--json")
    assert result.code == 0
    assert result.json["kv_bytes"] == 64 * 2**30
    assert result.json["weight_bytes"] is None
    assert "KV          64 GiB for 32 users" in result.err
    assert "weights     not counted: give --ffn and --vocab" in result.err


def test_grouped_heads_and_a_mixed_dtype_shrink_kv(octavo: Octavo) -> None:
    shape = [*LARGE, "--heads", "32", "--kv-heads", "8"]
    plain = octavo("plan", *shape, "--json").json["kv_bytes_per_token"]
    mixed = octavo("plan", *shape, "--kv-dtype", "k=f32,v=bf16", "--json").json
    assert plain == 32 * 8 * 128 * 2 * 2
    assert mixed["kv_bytes_per_token"] == 32 * 8 * 128 * (4 + 2)


def test_memory_tells_how_many_users_fit_or_how_much_is_missing(octavo: Octavo) -> None:
    result = octavo("plan", *LLAMA_7B, "--users", "4", "--memory", "16GiB", "--json")
    weights, process, user = 6_738_415_616 * 2, 150_000_000, 2**29
    assert result.json["fits"] is True
    assert result.json["users_that_fit"] == (2**34 - weights - process) // user == 6
    blocks = (2**34 - weights - process) // (4 * 32 * 2**19)
    assert result.json["context_that_fits"] == 32 * blocks == 1664
    assert result.err.splitlines()[-1] == (
        "fits into 16 GiB: it holds 6 users of 1,024 tokens, or 1,664 tokens for each of 4"
    )
    short = octavo("plan", *LLAMA_7B, "--users", "64", "--memory", "16G")
    assert short.code == 1
    assert short.out.splitlines()[-1] == (
        "does not fit: 28.7 GiB more than 16 GiB; "
        "it holds 6 users of 1,024 tokens, or 96 tokens for each of 64"
    )


def test_weights_that_do_not_fit_leave_nothing_and_unknown_ones_are_said(octavo: Octavo) -> None:
    alone = octavo("plan", *LLAMA_7B, "--context", "5000", "--memory", "14G")
    assert alone.out.splitlines()[-1].endswith(
        "; it holds 0 users of 5,000 tokens, or 2,656 tokens for 1 user"
    )
    result = octavo("plan", *LLAMA_7B, "--memory", "8G", "--json")
    assert (result.code, result.json["fits"], result.json["users_that_fit"]) == (1, False, 0)
    assert result.err.splitlines()[-1] == "does not fit: weights and process leave no room in 8 GiB"
    result = octavo("plan", *SMALL, "--memory", "8GiB")
    assert result.code == 0
    said = "without its weights it fits into 8 GiB: it holds"
    assert result.out.splitlines()[-1].startswith(said)


def test_no_more_tokens_are_promised_than_the_model_has(octavo: Octavo) -> None:
    flags = ["--users", "2", "--memory", "1GiB"]
    result = octavo("plan", TINY, "--context", "100", *flags, "--json")
    assert (result.json["model_context"], result.json["context_that_fits"]) == (128, 128)
    users = result.json["users_that_fit"]
    assert result.err.splitlines()[-1] == (
        f"fits into 1 GiB: it holds {users:,} users of 100 tokens, or 128 tokens for each of 2"
    )
    whole = octavo("plan", TINY, *flags)  # of the model's 128: there is no other number to tell
    assert whole.out.splitlines()[-1].endswith(" users of 128 tokens")
    assert whole.code == 0


def test_a_model_is_planned_from_its_file(octavo: Octavo) -> None:
    found = octavo("plan", TINY, "--context", "100", "--users", "3", "--json").json
    # layers, KV heads, dims, K and V, bf16
    assert found["kv_bytes_per_token"] == 2 * 2 * 16 * 2 * 2
    assert found["kv_bytes"] == 3 * 128 * 256  # four whole blocks each
    # 258 rows are 17 panels of 16
    assert found["weight_bytes"] == 4 * (272 * 64 + 5 * 64 + 2 * 64 * (64 + 2 * 32 + 64 + 3 * 96))


def test_weights_are_planned_as_they_are_asked_for(octavo: Octavo) -> None:
    found = octavo("plan", TINY, "--weights", "w8", "--json").json
    matrices = 272 * 64 + 2 * 64 * (64 + 2 * 32 + 64 + 2 * 96) + 2 * 64 * 128  # 96 columns as 128
    assert found["weight_bytes"] == matrices * 34 / 32 + 4 * 5 * 64
    why = "--weights is of a model; with a shape give --weights-bits"
    assert octavo("plan", *SMALL, "--weights", "w8") == refused(why)


def test_a_context_beyond_the_models_is_refused_as_run_refuses_it(octavo: Octavo) -> None:
    for verb in (["plan", TINY], ["explain", TINY], ["run", TINY, "hi", "--max-tokens", "1"]):
        words = "--context 129: the model was trained for at most 128 tokens"
        assert octavo(*verb, "--context", "129") == refused(words)
        assert octavo(*verb, "--context", "128").code == 0
        none = octavo(*verb, "--context", "0")
        assert none.err.startswith("octavo: --context 0: expected a whole number from 1 to ")
    # A context that was not given is the model's, if that is less.
    for name in ("plan", "explain"):
        assert octavo(name, TINY, "--json").json["context"] == 128
    assert octavo("plan", *SMALL, "--json").json["context"] == 1024
    assert octavo("plan", *SMALL, "--context", "5000", "--json").json["context"] == 5000


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [([], "give a model, or at least --layers and --hidden"),
     (["--layers", "2"], "give a model, or at least --layers and --hidden"),
     (["--layers", "0", "--hidden", "8"], "--layers 0: expected more than 0"),
     ([*SMALL, "--kv-heads", "2"], "--kv-heads and --head-dim need"),
     (["--layers", "2", "--hidden", "10", "--heads", "3"], "--hidden 10 does not divide into 3"),
     ([*SMALL, "--heads", "4", "--kv-heads", "3"], "--kv-heads 3 does not divide --heads 4"),
     ([*SMALL, "--heads", "8"], "heads of width 1"),
     ([*SMALL, "--weights-bits", "nan"], "--weights-bits nan: "),
     *(([*SMALL, flag, value], f"{flag} {value}: expected at most ")
       for flag in ("--ffn", "--vocab") for value in TOO_MUCH),
     *(([*SMALL, flag, value], f"{flag} {value}: expected a whole ")
       for flag in ("--users", "--context") for value in ("0", *TOO_MUCH)),
     ([*SMALL, "--weights-bits", "inf"], "--weights-bits inf: "),
     ([*SMALL, "--memory", "lots"], "--memory 'lots': expected bytes"),
     ([*SMALL, "--kv-dtype", "k=f32,v"], "--kv-dtype 'k=f32,v'"),
     (["model.gguf", "--layers", "2", "--tied-head"], "leave out --layers, --tied-head")],
)  # fmt: skip
def test_a_wrong_shape_is_refused_by_name(octavo: Octavo, flags: list[str], complaint: str) -> None:
    result = octavo("plan", *flags)
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert complaint in result.err


def test_the_largest_numbers_there_may_be_have_a_plan(octavo: Octavo) -> None:
    most = [t for flag in ("--users", "--context", "--weights-bits") for t in (flag, str(2**40))]
    shape = ["--layers", "2", "--hidden", "64", "--ffn", "8", "--vocab", "8"]
    plan = octavo("plan", *shape, *most, "--json")
    assert plan.code == 0
    assert plan.json["kv_bytes"] == 2 * 2 * 64 * 2 * 2**80


def test_a_user_whose_context_slides_takes_no_more_however_long_it_is(octavo: Octavo) -> None:
    """Of the tiny model a block takes 8,192 bytes: 2 are a context of 64, and 16 + 1 more are what
    a step of 512 rows writes, wherever its first row is."""
    flags = ("--sliding-context", "64", "--json")
    short, long = (octavo("plan", TINY, *flags, *more).json for more in ((), ("--context", "9999")))
    assert (short["context"], short["model_context"], short["sliding_context"]) == (64, 128, 64)
    block = 2 * octavo("plan", TINY, "--context", "32", "--json").json["kv_bytes_per_user"]
    assert short["kv_bytes_per_user"] == block
    assert long["kv_bytes_per_user"] == long["kv_bytes_at_most"] == short["kv_bytes_at_most"]
    assert long["kv_bytes_at_most"] <= 19 * block / 2
    text = octavo("plan", TINY, "--sliding-context", "64", "--memory", "1G").out
    assert "at 64 tokens, and " in text
    assert " however many they become: 64 are seen\n" in text
    assert text.endswith("users of 64 tokens\n")
    shape = octavo("plan", *LLAMA_7B, "--sliding-context", "1024", "--context", "50000", "--json")
    assert shape.json["kv_bytes_per_user"] == 2**19 * (1024 + 512 + 32)


def test_contexts_that_cannot_slide_are_refused(octavo: Octavo) -> None:
    for verb in (("plan", TINY), ("explain", TINY), ("run", TINY, "hi"), ("chat", TINY)):
        assert octavo(*verb, "--sliding-context", "160") == refused(
            "--sliding-context 160: the model was trained for at most 128 tokens, and no token may "
            "see more of them"
        )
        assert octavo(*verb, "--sliding-context", "100") == refused(
            "--sliding-context 100: expected whole blocks of 32 tokens, at least two"
        )
        assert octavo(*verb, "--sinks", "32") == refused(
            "--sinks 32: they are those of a sliding context, and there is none"
        )


def test_a_config_alone_says_what_latent_rows_spare(octavo: Octavo, tmp_path: Path) -> None:
    """DeepSeek-V2-Lite's sizes: 576 values a token and layer for 16 x (192 + 128); in formats that
    keep K in another basis, or not as they keep V, 512 more."""
    config = config_of("deepseek2") | {
        "hidden_size": 2048, "num_hidden_layers": 27, "num_attention_heads": 16,
        "num_key_value_heads": 16, "kv_lora_rank": 512, "qk_rope_head_dim": 64,
        "qk_nope_head_dim": 128, "v_head_dim": 128, "max_position_embeddings": 163840,
    }  # fmt: skip
    path = tmp_path / "config.json"
    write_json(path, config)
    result = octavo("plan", str(path), "--context", "8192", "--json")
    found = result.json
    assert found["kv_bytes_per_token"] == 2 * 27 * 576
    assert found["expanded_kv_bytes_per_token"] == 2 * 27 * 16 * (192 + 128)
    assert found["weight_bytes"] is None
    assert (
        "latent rows  8.9 times less than 270 KiB, K and V of 16 heads: a layer keeps 576 values "
        "of a token, and reads 512 of them as V\n"
    ) in result.err
    twice = octavo("plan", str(path), "--kv-dtype", "int8", "--json")
    assert twice.json["kv_bytes_per_token"] == 27 * (576 + 4 + 512 + 4)
    assert (
        "latent rows  4.8 times less than 138 KiB, K and V of 16 heads: a layer keeps 576 values "
        "of a token, and 512 of them a second time, as V: once where both are f32 or bf16\n"
    ) in twice.err
    mixed = octavo("plan", str(path), "--kv-dtype", "k=f32,v=bf16", "--json")
    assert mixed.json["kv_bytes_per_token"] == 27 * (4 * 576 + 2 * 512)
    assert octavo("plan", str(path), "--weights", "w4") == refused(
        "--weights is of a model; a config.json has none"
    )
    write_json(path, config | {"v_head_dim": 24})
    said = octavo("plan", str(path))
    assert said.code == 1
    assert "a part of 24 values of latent attention: multiples of 16 are run" in said.err
