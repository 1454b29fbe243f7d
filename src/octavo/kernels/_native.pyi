"""Types of the compiled core (csrc/bind/). Arrays are C-contiguous and never converted.

A function that takes `isa` runs on that level; see available_isas. Outputs are written in place.
"""

from collections.abc import Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

from octavo.batch import Batch, StepOutput

_Floats = NDArray[np.float32]
_Ints = NDArray[np.int32]
_Words = NDArray[np.uint32]
_Bytes = NDArray[np.uint8]

# ---- levels (bind/dispatch.cpp) ----

def available_isas() -> list[str]: ...
def plain_isas() -> list[str]:
    """Levels of plain code in place of instructions, for tests; none is ever chosen unasked."""

def default_isa() -> str: ...

KERNEL_VERSION: int

def arithmetic_class(isa: str) -> str:
    """Levels of the same class give the same bits."""

def simd_word(isa: str, word: str, out: _Bytes, a: _Bytes, b: _Bytes, c: _Bytes) -> None: ...
def tile_word(isa: str, word: str, c: _Words, a: _Words, b: _Words) -> None: ...

# ---- packed weights (bind/matmul.cpp) ----

class WeightMemory:
    """One block of memory that many packed weights share."""

    def __init__(self, nbytes: int) -> None: ...
    @property
    def capacity(self) -> int: ...
    @property
    def used(self) -> int: ...

class PackedWeight:
    """A (rows, cols) matrix in the panels of a WeightFormat."""

    @overload
    def __init__(
        self, rows: int, cols: int, format: str, memory: WeightMemory | None = None
    ) -> None: ...
    @overload
    def __init__(self, data: _Bytes, rows: int, cols: int, format: str) -> None: ...
    @property
    def rows(self) -> int: ...
    @property
    def cols(self) -> int: ...
    @property
    def panels(self) -> int: ...
    @property
    def format(self) -> str: ...
    @property
    def nbytes(self) -> int: ...
    def view(self) -> _Bytes: ...

def packed_nbytes(rows: int, cols: int, format: str) -> int: ...
def pack_weight(
    pool: ThreadPool,
    src: _Bytes,
    ggml_type: int,
    rows: int,
    cols: int,
    format: str,
    memory: WeightMemory | None = None,
) -> PackedWeight: ...
def quantize(
    isa: str, x: _Floats, kind: str, *, row_cut: int = 0, column_cut: int = 0
) -> bytes: ...
def matmul(
    isa: str,
    weight: PackedWeight,
    x: _Floats,  # (rows, cols)
    out: _Floats,  # (rows, weight rows)
    *,
    bias: _Floats | None = None,
    scale: float = 1.0,
    add: _Floats | None = None,
    panel0: int = 0,
    panel1: int | None = None,
    tile0: int = 0,
    tile1: int | None = None,
    rows: str | None = None,
) -> None: ...
def time_matmul(
    isa: str, weight: PackedWeight, x: _Floats, repeats: int, *, rows: str | None = None
) -> float: ...
def time_quantize(isa: str, x: _Floats, kind: str, repeats: int) -> float: ...
def expand_row(isa: str, weight: PackedWeight, row: int, out: _Floats) -> None: ...

# ---- KV pages (bind/attention.cpp) ----

KV_FORMATS: tuple[tuple[str, int, int, int, str, str, bool], ...]  # of KVFormat

class KVLayout:
    """Strides, in bytes, of the KV pages of one layer group."""

    def __init__(
        self,
        layers: int,
        kv_heads: int,
        k_dim: int,
        v_dim: int,
        k_format: str,
        v_format: str,
        block_size: int,
        v_aliases_k: bool = False,
    ) -> None: ...
    @property
    def layers(self) -> int: ...
    @property
    def kv_heads(self) -> int: ...
    @property
    def k_dim(self) -> int: ...
    @property
    def v_dim(self) -> int: ...
    @property
    def k_format(self) -> str: ...
    @property
    def v_format(self) -> str: ...
    @property
    def block_size(self) -> int: ...
    @property
    def v_aliases_k(self) -> bool: ...
    @property
    def k_head_stride(self) -> int: ...
    @property
    def v_head_stride(self) -> int: ...
    @property
    def v_offset(self) -> int: ...
    @property
    def layer_stride(self) -> int: ...
    @property
    def block_stride(self) -> int: ...

ATTENTION_TILE: int  # tokens of a step of the softmax
MAX_QUERY_GROUP: int  # query heads of one kv head, at most
MAX_HEAD_DIM: int  # values of a row of K or V, at most
MAX_CONTEXT: int  # positions
ATTENTION_CHUNK: int  # tokens of a partial state; chunks are merged in order

def write_kv(
    isa: str,
    pages: _Bytes,
    layout: KVLayout,
    block_table: _Ints,
    positions: _Ints,  # (tokens,)
    layer: int,
    k: _Floats,  # (tokens, kv_heads, k_dim)
    v: _Floats | None,  # (tokens, kv_heads, v_dim), none where V aliases K
) -> None: ...
def attention(
    isa: str,
    out: _Floats,  # (rows, heads, v_dim)
    q: _Floats,  # (rows, heads, k_dim)
    pages: _Bytes,
    layout: KVLayout,
    block_table: _Ints,
    layer: int,
    first_position: int,
    scale: float,
    window: int = 0,
    softcap: float = 0.0,
    slopes: _Floats | None = None,  # (heads,)
    rounded_slopes: bool = False,
    sink_logits: _Floats | None = None,  # (heads,)
    split_chunks: bool = False,
    shared_chunks: bool = False,
    sinks: tuple[KVLayout, _Bytes, int] | None = None,  # layout, pages, block
    beginning: int = 0,
    far_q: _Floats | None = None,  # as q, where there is a beginning
) -> None: ...

# ---- rows, head, sampler (bind/rows.cpp; meanings in csrc/kernels/rows.h) ----

VOCAB_TILE: int
MAX_VOCAB: int
MAX_TOP_K: int

def row_op(
    isa: str,
    name: str,  # of a row-wise op
    out: _Floats,
    x: _Floats,
    *,
    y: _Floats | None = None,
    weight: _Floats | None = None,  # (len(x) / heads,), as the bias; a factor: (1,)
    bias: _Floats | None = None,
    cos: _Floats | None = None,  # (rotary_dim / 2,)
    sin: _Floats | None = None,
    heads: int = 1,
    norm_kind: int = 0,  # of NORMS
    rope_style: int = 0,  # of ROPE_STYLES
    activation: int = 0,  # of ACTIVATIONS
    eps: float = 0.0,
    scale: float = 0.0,
    position: int = 0,
    original: int = 1,
) -> None:
    """One row through a row-wise op, for tests."""

def add_scaled(isa: str, out: _Floats, x: _Floats, factor: float) -> None:
    """out + factor * x, in place."""

def route(
    isa: str,
    out: _Floats,  # (2 * used,): experts, best first, then their factors
    logits: _Floats,  # (experts,)
    choice_bias: _Floats | None,
    score: int,  # of ROUTE_SCORES
    renormalise: bool,
    scale: float,
    groups: int,
    groups_used: int,
) -> None: ...
def softcap(isa: str, logits: _Floats, cap: float) -> None:
    """In place."""

def summarize_tile(isa: str, logits: _Floats, base: int) -> tuple[float, float, int, float]:
    """Maximum, sum of exp(x - maximum), best token, log-sum-exp."""

def merge_summaries(
    isa: str, maxima: _Floats, sums: _Floats, best: _Ints
) -> tuple[float, float, int, float]: ...
def edit_tile(
    isa: str,
    logits: _Floats,  # tokens base : base + len, in place
    base: int,
    mask: _Words | None,  # bit t of the whole vocabulary = allowed
    edits: _Bytes,  # (edits, 12): the bytes of octavo.batch.EDIT records, by ascending token
) -> None: ...
def best_tile(isa: str, logits: _Floats, base: int, mask: _Words | None) -> tuple[float, int]:
    """Maximum and best token of those that the mask allows."""

def top_k_tile(isa: str, ids: _Ints, values: _Floats, logits: _Floats, base: int) -> None:
    """As many as ids has room for, at most MAX_TOP_K; places left over get -1 and -inf."""

def merge_top_k(
    isa: str,
    out_ids: _Ints,  # (k,)
    out_values: _Floats,  # (k,)
    ids: _Ints,  # (tiles, k)
    values: _Floats,  # (tiles, k)
) -> None: ...
def sample_scratch(n: int) -> int:
    """uint64 values of scratch that `sample` needs for n logits."""

def sample(
    isa: str,
    logits: _Floats,
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float,
    u: float,
    scratch: NDArray[np.uint64],
    likeliest: int | None = None,
) -> int:
    """A token, or -1 if every logit is -inf or NaN. `likeliest`: one of the largest logit, where
    the caller knows it: it is not looked for then."""

def uniform(seed: int, answer: int, position: int) -> float:
    """The number in [0, 1) by which the token at a position of an answer is drawn: 53 bits of
    BLAKE2b of the three."""

def uniforms(
    out: NDArray[np.float64],  # (rows,)
    counters: NDArray[np.uint64],  # (rows, 2): seed and answer
    positions: _Ints,  # (rows,)
) -> None:
    """The `uniform` of each token that a row draws, which is the one after the row's position."""

# ---- what the machine can do (bind/probe.cpp) ----

def read_bandwidth(isa: str, pool: ThreadPool, data: _Bytes, repeats: int) -> float:
    """Bytes per second of all threads of the pool, each on a slice of its own."""

def integer_peak(isa: str, pool: ThreadPool, iterations: int) -> float:
    """int8 operations per second of all threads of the pool."""

def float_peak(isa: str, pool: ThreadPool, iterations: int) -> float:
    """float32 operations per second of all threads of the pool, by fma."""

def bf16_peak(isa: str, pool: ThreadPool, iterations: int) -> float | None:
    """The same by bf16 dots; None where the level has no such instruction."""

# ---- programs (bind/program.cpp) ----

def usable_cpus() -> int: ...

class ThreadPool:
    """A team of threads that run a program together; asleep when idle."""

    def __init__(self, threads: int) -> None: ...
    @property
    def size(self) -> int: ...
    def run_barriers(self, rounds: int) -> int: ...

OPS: tuple[str, ...]  # by code
RECORD_FIELDS: tuple[tuple[str, str], ...]  # name, numpy type
BUFFER_FIELDS: tuple[tuple[str, str], ...]
ROPE_STYLES: tuple[str, ...]
NORMS: tuple[str, ...]
ACTIVATIONS: tuple[str, ...]
ROUTE_SCORES: tuple[str, ...]
MAX_EXPERTS: int
ROW_KINDS: tuple[str, ...]  # how rows are packed for a matrix
WANTS: tuple[str, ...]  # octavo.batch.Want by value
PANEL_ROWS: (
    int  # rows of a matrix that are packed together: a head of whole panels is a unit of work
)
GROUP_COLUMNS: int  # columns that share one scale: whole groups of a row can be packed alone

class Program:
    """The native interpreter of one program; see csrc/program/program.h."""

    def __init__(
        self,
        isa: str,
        pool: ThreadPool,
        records: _Ints,  # (ops, fields)
        buffers: _Ints,  # (buffers, 2)
        matrices: Sequence[PackedWeight],
        vectors: Sequence[_Floats],
        # pages, window, the beginning seen beside it, sinks' group
        groups: Sequence[tuple[KVLayout, _Bytes, int, int, int | None]],
        # cos and sin, (context, rotary_dim / 2); by row of a step (max_rows, rotary_dim / 2)
        rope_tables: Sequence[tuple[_Floats, _Floats]],
        slopes: Sequence[tuple[_Floats, bool]],  # (heads,), and whether biases are rounded to bf16
        max_rows: int,
        tables: Sequence[tuple[_Bytes, int, int, int]] = (),  # in a file: bytes, ggml type, shape
        rope_by_row: bool = False,
    ) -> None: ...
    def run(self, batch: Batch, output: StepOutput) -> None:
        """Arrays are read from `batch` and written to `output` by attribute; without op_ns (of size
        0) nothing is timed."""

# ---- strings (bind/strings.cpp) ----

def read_strings(data: _Bytes, begin: int, count: int) -> tuple[list[str], int]:
    """The strings of a GGUF array from `begin` on, at most `count`, and where they end: before the
    first that data does not hold whole, or that is not UTF-8."""
