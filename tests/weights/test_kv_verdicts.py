"""What a KV dtype did to a model is found again by the model's fingerprint, and only warned of."""

from __future__ import annotations

from pathlib import Path

from octavo.weights.kv_verdicts import keep, key, verdict, warning


def test_a_verdict_is_kept_by_model_and_dtype_and_the_last_one_counts(tmp_path: Path) -> None:
    keep(tmp_path, "a", {"int8": {"verdict": "not safe"}, "f32": {"verdict": "safe"}})
    keep(tmp_path, "b", {"int8": {"verdict": "usable"}})
    assert [verdict(tmp_path, "a", d) for d in ("int8", "f32", "bf16")] == [
        "not safe",
        "safe",
        None,
    ]
    assert verdict(tmp_path, "b", "int8") == "usable"
    keep(tmp_path, "a", {"int8": {"verdict": "safe"}})
    assert [verdict(tmp_path, "a", d) for d in ("int8", "f32")] == ["safe", "safe"]


def test_weights_of_another_format_are_another_model(tmp_path: Path) -> None:
    keep(tmp_path, "a", {"int8": {"verdict": "safe"}})
    keep(tmp_path, "a", {"int8": {"verdict": "not safe"}}, "bf16")
    assert [verdict(tmp_path, "a", "int8", w) for w in (None, "bf16", "int8")] == [
        "safe",
        "not safe",
        None,
    ]
    assert warning(tmp_path, "a", "int8") is None
    assert warning(tmp_path, "a", "int8", "bf16") is not None


def test_figures_without_a_verdict_leave_one_that_there_is(tmp_path: Path) -> None:
    keep(tmp_path, "a", {"int8": {"verdict": "not safe"}, "f32": {"verdict": None}})
    keep(tmp_path, "a", {"int8": {"verdict": None}, "f32": {"verdict": None}})
    assert [verdict(tmp_path, "a", d) for d in ("int8", "f32")] == ["not safe", None]


def test_only_what_is_not_safe_warns(tmp_path: Path) -> None:
    found: dict[str, dict[str, str | None]] = {
        "int8": {"verdict": "not safe"},
        "f32": {"verdict": "usable"},
        "bf16": {"verdict": None},
    }
    keep(tmp_path, "a", found)
    said = warning(tmp_path, "a", "int8")
    assert said is not None
    assert said.startswith("kv_dtype=int8 was measured as not safe for this model")
    assert [warning(tmp_path, "a", d) for d in ("f32", "bf16", "k=int8,v=bf16")] == [None] * 3
    assert warning(tmp_path, "b", "int8") is None
    assert warning(None, "a", "int8") is None


def test_int4_warns_until_it_was_measured(tmp_path: Path) -> None:
    for dtype in ("int4", "k=int8,v=int4", "k=int4,v=bf16"):
        for home in (None, tmp_path):
            said = warning(home, "a", dtype, sinks=32)
            assert said is not None
            assert said.startswith(f"kv_dtype={dtype} was not measured for this model")
        keep(tmp_path, "a", {key(dtype, 32): {"verdict": "usable"}})
        assert warning(tmp_path, "a", dtype, sinks=32) is None


def test_int4_without_sinks_is_measured_for_itself(tmp_path: Path) -> None:
    keep(tmp_path, "a", {key("int4", 32): {"verdict": "usable"}})
    said = warning(tmp_path, "a", "int4")
    assert said is not None
    assert said.startswith("kv_dtype=int4 without sinks was not measured for this model")
    keep(tmp_path, "a", {key("int4", 0): {"verdict": "not safe"}})
    said = warning(tmp_path, "a", "int4")
    assert said is not None
    assert said.startswith("kv_dtype=int4 without sinks was measured as not safe")
    assert warning(tmp_path, "a", "int4", sinks=64) is None


def test_a_broken_file_or_a_folder_that_cannot_be_written_warns_nobody(tmp_path: Path) -> None:
    broken = (b"{", b"[" * 100_000, b"\xff", b"[]", b'{"a": 1}', b'{"a": {"int8": 2}}')
    for content in (*broken, b'{"a": {"int8": {}}}'):
        (tmp_path / "kv_dtypes.json").write_bytes(content)
        assert verdict(tmp_path, "a", "int8") is None
    keep(tmp_path, "a", {"int8": {"verdict": "safe"}})
    assert verdict(tmp_path, "a", "int8") == "safe"
    (tmp_path / "file").touch()
    keep(tmp_path / "file", "a", {"int8": {"verdict": "safe"}})  # and that is no error
