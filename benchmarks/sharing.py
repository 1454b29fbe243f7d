"""Blocks that parallel samples and beams save by sharing them, and the same counted another way.

Saved: 1 - blocks held / blocks in the tables of all sequences, both summed over the steps in which
answers grow. Held is the pool's count in each StepRecord; the tables are the scheduler's.

Samples share the whole blocks of their prompt, and nothing more once their answers part. With w
answers to a prompt of p tokens, when t tokens of each answer are stored, blocks of B tokens:

    without sharing  w * ceil((p + t) / B)
    with sharing     w * ceil((p + t) / B) - (w - 1) * floor(p / B)

Beams also share what their common ancestors wrote. Counted from the recorded parent pointers: the
block that filled up with token g of the answers is as many blocks as its beams have different
ancestors at g; the one being filled is each beam's own.

Beams choose among random continuations: how often they fork is no model's, so beside the paper's
figures theirs say little. That the two counts are equal is the point.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.data import Lengths, azure_lengths, scaled
from benchmarks.figure import Figure
from benchmarks.modelless import Drawn, Modelless, distinct_prompt
from octavo.engine.nouns import Request

BLOCK_SIZE = 16  # the paper's default
WIDTHS = (2, 4, 6)
REQUESTS = 32  # of the trace, evenly taken

# Mean lengths of prompt and answer; the mix around them is the Azure conversations'.
MEANS = {"Alpaca": Lengths(19, 58), "ShareGPT": Lengths(161, 338)}
# % of blocks saved at the smallest and largest width: Kwon et al., SOSP 2023, section 6.3.
PAPER = {
    ("samples", "Alpaca"): (6.1, 9.8),
    ("beams", "Alpaca"): (37.6, 55.2),
    ("samples", "ShareGPT"): (16.2, 30.5),
    ("beams", "ShareGPT"): (44.3, 66.3),
}


@dataclass(frozen=True, slots=True)
class Blocks:
    """Counts of blocks, summed over steps."""

    unshared: int
    held: int

    @property
    def saved(self) -> float:
        return 1 - self.held / self.unshared


def measure(
    lengths: Sequence[Lengths], params: dict[str, object], *, block_size: int = BLOCK_SIZE
) -> tuple[Blocks, list[Request]]:
    """All requests at once; their prompts are the first step, which is not counted."""
    width = max(v for v in params.values() if isinstance(v, int))
    longest = max(each.prompt + each.answer for each in lengths)
    rows = sum(each.prompt for each in lengths) + width * len(lengths)
    engine = Modelless(
        Drawn(),
        num_blocks=2 * width * len(lengths) * -(-longest // block_size),
        block_size=block_size,
        max_num_seqs=width * len(lengths),
        max_rows=rows,
        context=longest,
    )
    requests = [
        engine.offer(distinct_prompt(i, each.prompt), each.answer, **params)
        for i, each in enumerate(lengths)
    ]
    first, *others = engine.steps()
    assert first.record.computed_tokens == sum(each.prompt for each in lengths)
    held = sum(moment.record.kv_blocks_used for moment in others)
    return Blocks(sum(moment.table_blocks for moment in others), held), requests


def sample_blocks(lengths: Sequence[Lengths], width: int, block_size: int) -> Blocks:
    """The formula above. The last token of an answer is drawn and never stored."""
    unshared = saved = 0
    for prompt, answer in lengths:
        for stored in range(1, answer):
            unshared += width * -(-(prompt + stored) // block_size)
            saved += (width - 1) * (prompt // block_size)
    return Blocks(unshared, unshared - saved)


def beam_blocks(requests: Sequence[Request], block_size: int) -> Blocks:
    """Count blocks from prompt lengths and parent pointers alone."""
    unshared = held = 0
    for request in requests:
        prompt, parents = request.num_prompt_tokens, request.branch_parents
        for stored in range(1, len(parents) + 1):
            beams = len(parents[stored - 1])
            unshared += beams * -(-(prompt + stored) // block_size)
            held += count_beam_blocks(prompt, parents[:stored], block_size)
    return Blocks(unshared, held)


def count_beam_blocks(prompt: int, parents: Sequence[tuple[int, ...]], block_size: int) -> int:
    """Different blocks of the beams after their last step: `parents[g]` are the beams' that hold
    g + 1 tokens, as places among those that held g."""
    beams = set(range(len(parents[-1])))
    count = 0 if (prompt + len(parents)) % block_size == 0 else len(beams)
    for stored in range(len(parents), 0, -1):
        if (prompt + stored) % block_size == 0:
            count += len(beams)
        beams = {parents[stored - 1][beam] for beam in beams}
    return count + prompt // block_size


def figures(folder: Path) -> list[Figure]:
    trace = azure_lengths(folder, "conv")
    taken = trace[:: len(trace) // REQUESTS][:REQUESTS]
    return [
        figure(kind, name, scaled(taken, prompt=means.prompt, answer=means.answer), width)
        for name, means in MEANS.items()
        for kind in ("samples", "beams")
        for width in WIDTHS
    ]


def figure(kind: str, name: str, lengths: Sequence[Lengths], width: int) -> Figure:
    if kind == "samples":
        blocks, _ = measure(lengths, {"n": width, "temperature": 1.0, "seed": 1})
        counted = sample_blocks(lengths, width, BLOCK_SIZE)
    else:
        blocks, requests = measure(lengths, {"beam_width": width})
        counted = beam_blocks(requests, BLOCK_SIZE)
    low, high = PAPER[kind, name]
    return Figure(
        name=f"blocks saved, {name}-like lengths, {width} {kind}",
        ours=100 * blocks.saved,
        unit="%",
        theirs=f"{low}-{high} % (OPT-13B, {WIDTHS[0]} to {WIDTHS[-1]})",
        goal=f"{100 * counted.saved:.2f} % "
        + ("by the formula" if kind == "samples" else "by parent pointers"),
        met=blocks == counted,
        counts={
            "held_block_steps": blocks.held, "unshared_block_steps": blocks.unshared,
            "counted_held": counted.held, "counted_unshared": counted.unshared,
        },
    )  # fmt: skip
