"""How a configuration reaches the parts of an engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from octavo.config import PACKED_WEIGHTS, EngineConfig, PackedWeights
from octavo.errors import OutOfMemoryError, UsageError
from octavo.kernels import KV_FORMATS
from octavo.loaded_model import load_model, numerics
from octavo.program.kv_bytes import PageFormats, kv_bytes_per_token
from tests.cli.tiny_model import write_tiny_model
from tests.engine.busy import MODEL, POOL, TEXT
from tests.engine.tiny_engine import add, tiny_engine
from tests.families.directories import golden_of, write_directory


def test_what_changes_the_bits_of_k_and_v_changes_the_namespace(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "tiny.gguf")
    for kv_dtype, kept in (("bf16", ("bf16", "bf16")), ("k=f32,v=bf16", ("f32", "bf16"))):
        config = EngineConfig.parse({"threads": 1, "kv_dtype": kv_dtype})
        namespace = load_model(path, config).engine.namespace
        assert (namespace.k_dtype, namespace.v_dtype) == kept
        assert namespace.numerics == numerics(config)
    others = [("activations", "bf16"), *(("weights", asked) for asked in PACKED_WEIGHTS)]
    configs = [EngineConfig(), *(EngineConfig.parse({name: value}) for name, value in others)]
    assert len(set(map(numerics, configs))) == 6


def test_pages_turned_by_either_list_of_longrope_are_never_mixed(tmp_path: Path) -> None:
    """And the list is chosen by the context that was asked for, whatever prompts come."""
    golden = golden_of("llama-longrope-short")
    path = write_directory(tmp_path, "llama-longrope-short", golden["shapes"], golden["seed"])
    loaded = {
        context: load_model(path, EngineConfig(threads=1, context=context))
        for context in (256, 257)
    }
    assert len({each.engine.namespace for each in loaded.values()}) == 2
    tables = [each.program.rope_tables["default"] for each in loaded.values()]
    assert tables[0].amplitude == tables[1].amplitude == 1.3
    assert tables[0].frequencies[-1] / tables[1].frequencies[-1] == pytest.approx(21 / 2.5)


def test_a_context_beyond_what_dynamic_scaling_leaves_alone_is_refused_and_says_why(
    tmp_path: Path,
) -> None:
    golden = golden_of("llama-dynamic")
    path = write_directory(tmp_path, "llama-dynamic", golden["shapes"], golden["seed"])
    with pytest.raises(UsageError) as refused:
        load_model(path, EngineConfig(threads=1, context=257))
    assert str(refused.value) == (
        "context=257: the model was trained for at most 256 tokens; its dynamic RoPE scaling beyond"
        " them is not supported"
    )


def test_longest_prefix_first_reaches_the_scheduler() -> None:
    for schedule, first in (("fcfs", 0), ("longest-prefix", 1)):
        engine = tiny_engine(MODEL, POOL, max_num_seqs=1, schedule=schedule, step_ms=None)
        add(engine, TEXT[:40], max_tokens=1)
        engine.step()
        waiting = [add(engine, TEXT[::-1], max_tokens=1), add(engine, TEXT, max_tokens=1)]
        assert engine.step().finished == [waiting[first]]


def test_memory_is_priced_as_it_is_kept_and_computing_it_again_by_the_budget() -> None:
    engine = tiny_engine(MODEL, POOL, kv_dtype="k=f32,v=bf16")
    groups = engine.budget._costs.groups
    assert sum(g.kv_bytes for g in groups) == kv_bytes_per_token(
        MODEL.program, PageFormats.everywhere(KV_FORMATS["f32"], KV_FORMATS["bf16"])
    )
    assert engine.kv.cost(3, 10) == engine.budget.units(3, 10)


@pytest.mark.parametrize("weights", [None, *PACKED_WEIGHTS])
def test_the_weights_have_to_fit_as_they_will_lie_in_memory(
    weights: PackedWeights | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_tiny_model(tmp_path / "tiny.gguf")
    config = EngineConfig.parse({"threads": 1, "weights": weights})
    nbytes = load_model(path, config).info.weight_bytes
    monkeypatch.setattr("octavo.loaded_model.available_memory", lambda: 1000)
    with pytest.raises(OutOfMemoryError, match=rf"weights take {nbytes:,} bytes, .* 1,000"):
        load_model(path, config)


def test_memory_that_runs_out_while_a_model_is_loaded_is_an_error_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise MemoryError

    path = write_tiny_model(tmp_path / "tiny.gguf")
    monkeypatch.setattr("octavo.loaded_model.load_weights", full)
    with pytest.raises(OutOfMemoryError, match=r"ran out while .*tiny\.gguf was loaded: free"):
        load_model(path, EngineConfig())
