"""What native.Program refuses, and that it keeps what it was given.

No caller may crash the process, whatever it passes.
"""

from __future__ import annotations

import gc
import os
import re
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from octavo.batch import Batch, StepOutput, Want
from octavo.config import EngineConfig
from octavo.engine.runner import kv_layout
from octavo.engine.step import make_batch
from octavo.kernels import default_isa, native
from octavo.program.encode import encode
from octavo.program.fuse import RowKind, fuse, lower
from octavo.program.rope import cos_sin
from tests.tiny import TINY, tiny_model

POOL = native.ThreadPool(2)
VOCAB, HIDDEN, CONTEXT, BLOCKS = TINY.vocab_size, TINY.hidden_size, 256, 16


@dataclass
class Parts:
    """The parts that a Program is made of, open to changes."""

    ops: list[str]
    records: NDArray[np.void]  # (ops,) RECORD
    buffers: NDArray[np.void]  # (buffers,) BUFFER
    matrices: list[Any]
    vectors: list[Any]
    layout: Any
    window: int
    cos: NDArray[np.float32]
    sin: NDArray[np.float32]
    max_rows: int = 64

    def buffer_of(self, op: str, field: str) -> int:
        return int(self.records[field][self.ops.index(op)])

    def build(self) -> native.Program:
        pages = _aligned(BLOCKS * 24 * 1024)
        words = [np.ascontiguousarray(a).view(np.int32) for a in (self.records, self.buffers)]
        return native.Program(
            default_isa(), POOL, words[0].reshape(len(self.records), -1),
            words[1].reshape(len(self.buffers), -1), self.matrices, self.vectors,
            [(self.layout, pages, self.window)], [(self.cos, self.sin)], self.max_rows,
        )  # fmt: skip


def _aligned(size: int) -> NDArray[np.uint8]:
    raw = np.zeros(size + 64, np.uint8)
    begin = -raw.ctypes.data % 64
    return raw[begin : begin + size]


def make_parts(*, fused: bool = True) -> Parts:
    config = EngineConfig.parse({})
    model = tiny_model(TINY, POOL)
    kinds: dict[str, RowKind] = dict.fromkeys(model.weights.matrices, "a32")
    encoded = encode((fuse if fused else lower)(model.program, kinds), kinds)
    cos, sin = cos_sin(model.program.rope_tables["default"], CONTEXT)
    return Parts(
        ops=list(encoded.op_names),
        records=encoded.records.copy(),
        buffers=encoded.buffers.copy(),
        matrices=[model.weights.matrices[name] for name in encoded.matrices],
        vectors=[model.weights.vectors[name] for name in encoded.vectors],
        layout=kv_layout(model.program, 0, config),
        window=0,
        cos=cos,
        sin=sin,
    )


def batch_of(tokens: list[int], first_block: int = 0) -> Batch:
    """One sequence from position 0 whose rows all want their logits."""
    rows = len(tokens)
    table = [first_block + i for i in range(4)]
    return make_batch([(tokens, 0)], [[table]], range(rows), [Want.LOGITS] * rows)


def output_of(batch: Batch) -> StepOutput:
    rows = len(batch.tokens)
    return StepOutput(
        argmax=np.empty(rows, np.int32),
        log_sum_exp=np.empty(rows, np.float32),
        top_ids=np.empty((rows, 0), np.int32),
        top_logits=np.empty((rows, 0), np.float32),
        logits=np.empty((rows, VOCAB), np.float32),
        hidden=np.empty((0, HIDDEN), np.float32),
    )


def run(program: native.Program, tokens: list[int], first_block: int = 0) -> NDArray[np.float32]:
    """(tokens, vocab) logits of one sequence from position 0."""
    batch = batch_of(tokens, first_block)
    output = output_of(batch)
    program.run(batch, output)
    return output.logits


def put(op: str, field: str, value: float | list[int]) -> Callable[[Parts], None]:
    def change(parts: Parts) -> None:
        parts.records[field][parts.ops.index(op)] = value

    return change


def drop_first(parts: Parts) -> None:
    parts.records = parts.records[1:]


def two_heads(parts: Parts) -> None:
    parts.records = np.concatenate([parts.records, parts.records[-1:]])


def pack_the_embedding(parts: Parts) -> None:
    parts.buffers["kind"][parts.buffer_of("Embed", "out")] = 0


def unpack_the_rows(parts: Parts) -> None:
    parts.buffers["kind"][parts.buffer_of("QKV", "x")] = -1


def set_part(name: str, value: object) -> Callable[[Parts], None]:
    return lambda parts: setattr(parts, name, value)


def set_width(width: int) -> Callable[[Parts], None]:
    return lambda parts: parts.buffers["width"].__setitem__(0, width)


REFUSED: dict[str, tuple[bool, Callable[[Parts], None], str]] = {
    "no embedding": (True, drop_first, "first op's code: expected 0"),
    "two heads": (True, two_heads, "expected one Embed, the first op, and one Head, the last"),
    "none for a matrix": (True, set_part("matrices", [None]), "matrices: expected PackedWeight"),
    "none for a layout": (True, set_part("layout", None), "groups: expected KVLayout, got None"),
    "window": (True, set_part("window", -1), "groups window, at least: expected 0, got -1"),
    "rows": (True, set_part("max_rows", 0), "max_rows - 1: expected 0 to 16777215, got -1"),
    "many rows": (True, set_part("max_rows", 2**31 - 1), "max_rows - 1: expected 0 to 16777215"),
    "width": (True, set_width(-(2**31) + 1), "buffers width - 1: expected 0 to 16777215"),
    "packed embedding": (True, pack_the_embedding, ".out: expected a buffer of float rows"),
    "float rows": (True, unpack_the_rows, ".out: expected a buffer of packed rows"),
    "unused buffer": (True, put("Head", "out", 99), "op 15.out: expected 0 to"),
    "table": (True, put("QKV", "rope_table", 1), "rope_table: expected 0 to 0, got 1"),
    "no table": (False, put("Rope", "rope_table", -1), "rope_table: expected 0 to 0, got -1"),
    "sines": (True, set_part("sin", np.zeros((99, 16), np.float32)), "sin positions: expected 256"),
    "pairs": (True, set_part("sin", np.zeros((256, 9), np.float32)), "sin pairs: expected 16, got"),
    "code": (True, put("Matmul", "code", 99), "code, at most: expected 13, got 99"),
    "no weight": (False, put("RmsNorm", "vector", [-1] * 3), ".vector: expected 0 to 10, got -1"),
    "other weight": (False, put("RmsNorm", "vector", [1] * 3), "vector size: expected 96, got 128"),
    "other width": (False, put("SwiGLU", "y", 0), ".y width: expected 160, got 96"),
    "no heads": (False, put("RmsNorm", "heads", 0), ".heads: expected 1 to 96, got 0"),
    "negative heads": (False, put("Rope", "heads", -4), ".heads: expected 1 to 128, got -4"),
    "norm of heads": (False, put("RmsNorm", "heads", 2), "heads x head_dim: expected 96, got 192"),
    "style": (True, put("QKV", "rope_style", 2), "rope_style: expected 0 to 1, got 2"),
    "scale": (True, put("AttendQuantize", "scale", 0.0), "scale: expected a positive finite"),
    "heads": (False, put("Rope", "heads", 64), "heads x head_dim: expected 128, got 2048"),
    "many heads": (False, put("Rope", "heads", 10**6), ".heads: expected 1 to 128, got 1000000"),
    "head_dim": (False, put("Rope", "head_dim", 2**28), "heads x head_dim: expected 128, got"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_program_that_would_leave_its_arrays_is_refused(name: str) -> None:
    fused, change, message = REFUSED[name]
    parts = make_parts(fused=fused)
    change(parts)
    with pytest.raises(ValueError, match=re.escape(message)):
        parts.build()


READ_ONLY = np.zeros(2, np.int32)
READ_ONLY.flags.writeable = False


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": [1, 2]}, "tokens: expected a C-contiguous array: a bytes-like object is"),
        ({"tokens": None}, "tokens: expected a C-contiguous array: a bytes-like object is"),
        ({"tokens": np.zeros(4, np.int32)[::2]}, "tokens: expected a C-contiguous array: ndarray"),
        ({"tokens": np.zeros(2, np.int64)}, 'tokens: expected int32 of ndim 1, got'),
        ({"tokens": np.zeros(2, ">i4")}, 'int32 of ndim 1, got ">i" of 4 bytes'),
        ({"positions": np.zeros((1, 2), np.int32)}, 'of ndim 1, got "i" of 4 bytes, ndim 2'),
        ({"positions": np.zeros((), np.int32)}, 'of ndim 1, got "i" of 4 bytes, ndim 0'),
        ({"block_tables": np.zeros((1, 4), np.int32)}, "block_tables: expected int32 of ndim 3"),
        ({"wants": np.zeros(2, np.float32)}, 'wants: expected int32 of ndim 1, got'),
        ({"masks": np.zeros((2, 35), np.int32)}, "masks: expected uint32 of ndim 2"),
        (
            {"edits": np.zeros((1, 3), np.int32), "edit_starts": np.array([0, 0, 1], np.int32)},
            'edits: expected octavo.batch.EDIT of ndim 1, got "i" of 4 bytes, ndim 2',
        ),
        ({"top_k": 1.5}, "top_k: expected an int32"),
        ({"top_k": 2**31}, "top_k: expected an int32"),
    ],
)  # fmt: skip
def test_arrays_of_another_type_are_refused_by_name(change: dict[str, Any], message: str) -> None:
    program, batch = make_parts().build(), batch_of([1, 2])
    with pytest.raises(TypeError, match=re.escape(message)):
        program.run(replace(batch, **change), output_of(batch))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"argmax": READ_ONLY}, TypeError, "argmax: expected a C-contiguous writable array"),
        ({"argmax": np.zeros(3, np.int32)}, ValueError, "argmax: expected 2, got 3"),
        ({"log_sum_exp": np.zeros(2)}, TypeError, "log_sum_exp: expected float32 of ndim 1"),
        ({"log_sum_exp": np.zeros(1, np.float32)}, ValueError, "log_sum_exp: expected 2, got 1"),
        ({"top_ids": np.zeros((3, 0), np.int32)}, ValueError, "top_ids outputs: expected 2"),
        ({"top_ids": np.zeros((2, 1), np.int32)}, ValueError, "top_ids columns: expected 0"),
        ({"top_logits": np.zeros((2, 1), np.float32)}, ValueError, "top_logits columns: expect"),
        ({"logits": np.zeros((1, VOCAB), np.float32)}, ValueError, "logits rows: expected 2"),
        ({"logits": np.zeros((2, 9), np.float32)}, ValueError, "logits width: expected 1100"),
        ({"hidden": np.zeros((1, HIDDEN), np.float32)}, ValueError, "hidden rows: expected 0"),
        ({"hidden": np.zeros((0, 9), np.float32)}, ValueError, "hidden width: expected 96"),
        ({"op_ns": np.zeros(3, np.uint64)}, ValueError, "op_ns: expected 16, got 3"),
        ({"op_ns": np.zeros(16, np.int64)}, TypeError, "op_ns: expected uint64 of ndim 1"),
    ],
)  # fmt: skip
def test_results_that_do_not_fit_are_refused_by_name(
    change: dict[str, Any], error: type[Exception], message: str
) -> None:
    program, batch = make_parts().build(), batch_of([1, 2])
    with pytest.raises(error, match=re.escape(message)):
        program.run(batch, replace(output_of(batch), **change))


def test_what_has_no_such_attribute_is_refused() -> None:
    program, batch = make_parts().build(), batch_of([1, 2])
    with pytest.raises(AttributeError, match="tokens"):
        program.run(output_of(batch), output_of(batch))


def test_a_step_holds_its_arrays_whatever_becomes_of_the_attributes() -> None:
    """Each read of this batch's tokens is a new array that nobody else holds."""

    class Fresh:
        def __getattr__(self, name: str) -> object:
            value = getattr(batch, name)
            return value.copy() if isinstance(value, np.ndarray) else value

    program, batch = make_parts().build(), batch_of([1, 2, 3])
    output = output_of(batch)
    program.run(Fresh(), output)
    assert np.array_equal(output.logits, run(program, [1, 2, 3]))


def test_rotary_dims_wider_than_a_head_are_refused() -> None:
    parts = make_parts()
    parts.cos = parts.sin = np.zeros((CONTEXT, 32), np.float32)
    with pytest.raises(ValueError, match="rotary_dim: expected 0 to 32, got 64"):
        parts.build()


def test_layers_of_a_group_have_the_same_heads() -> None:
    parts = make_parts(fused=False)
    second = max(i for i, op in enumerate(parts.ops) if op == "Attend")
    narrow = np.array([(64, -1), (64, -1)], parts.buffers.dtype)
    parts.buffers = np.concatenate([parts.buffers, narrow])
    extra = replace_fields(parts.records[second], heads=2, x=len(parts.buffers) - 2,
                           out=len(parts.buffers) - 1)  # fmt: skip
    records = parts.records
    parts.records = np.concatenate([records[: second + 1], extra, records[second + 1 :]])
    with pytest.raises(ValueError, match="as in its group's other layers: expected 4, got 2"):
        parts.build()


def replace_fields(record: NDArray[np.void], **fields: int) -> NDArray[np.void]:
    copy = np.array([record])
    for name, value in fields.items():
        copy[name] = value
    return copy


def test_a_program_keeps_what_its_lists_held() -> None:
    parts = make_parts()
    program = parts.build()
    before = run(program, [1, 2, 3])
    parts.matrices.clear()
    parts.vectors.clear()
    del parts
    gc.collect()
    junk = [np.full(5000, 7, np.float32) for _ in range(200)]  # takes the place of what was freed
    assert np.array_equal(run(program, [1, 2, 3]), before)
    assert len(junk) == 200


def test_threads_that_run_one_program_take_turns() -> None:
    program = make_parts().build()
    prompts = [[1, 2, 3, 4, 5, 6, 7, 8] * 6, [9, 8, 7, 6] * 8]
    alone = [run(program, prompt, 4 * i) for i, prompt in enumerate(prompts)]
    wrong = [0, 0]

    def work(i: int) -> None:
        for _ in range(150):
            wrong[i] += not np.array_equal(run(program, prompts[i], 4 * i), alone[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == [0, 0]


def test_a_program_is_refused_in_a_forked_child_even_in_the_midst_of_a_run() -> None:
    program = make_parts().build()
    run(program, [1])
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            run(program, [1, 2] * 30)

    busy = threading.Thread(target=work)
    busy.start()
    try:
        for _ in range(20):
            child = os.fork()
            if child == 0:
                signal.alarm(20)  # a child that waits for a lost lock would wait for ever
                try:
                    run(program, [1])
                except RuntimeError as error:
                    os._exit(0 if "fork" in str(error) else 2)
                os._exit(1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        stop.set()
        busy.join()
