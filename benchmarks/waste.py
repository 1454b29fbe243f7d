"""KV memory that holds no token, while requests of given lengths run.

The average is over the steps of all requests: slots without a token in the blocks that running
requests hold, over all slots of these blocks, both summed over the engine's StepRecords. Requests
run many at once. Their prompts take one step each and share nothing, and none has to give way, so
the sums are those of each request alone, added up: they have to equal the same by arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.data import Lengths, azure_lengths
from benchmarks.figure import Figure
from benchmarks.modelless import Modelless, Scripted, distinct_prompt

RESERVED = 8192  # tokens that a server without paging reserves for each request
AT_ONCE = 64

# % of the slots of allocated blocks: a script over the lengths, each request alone, no engine.
REFERENCE = {
    "conv": {8: 0.28, 16: 0.59, 32: 1.21, 64: 2.44, 128: 4.85, RESERVED: 84.6},
    "code": {8: 0.16, 16: 0.35, 32: 0.72, 64: 1.46, 128: 2.92, RESERVED: 73.7},
}
GOALS = {"conv": {16: 0.8, 32: 1.5}}  # at most
BLOCK_SIZES = {"conv": (16, 32, RESERVED), "code": (8, 16, 32, 64, 128, RESERVED)}


@dataclass(frozen=True, slots=True)
class Waste:
    slots: int  # of blocks that running requests held, summed over steps
    unfilled: int
    steps: int
    served: int
    refused: int  # too long for what is reserved

    @property
    def fraction(self) -> float:
        return self.unfilled / self.slots


def measure(lengths: Sequence[Lengths], block_size: int, *, at_once: int = AT_ONCE) -> Waste:
    """A block of `RESERVED` tokens is a reservation: a request has one block, or is refused."""
    longest = max(each.prompt + each.answer for each in lengths)
    context = RESERVED if block_size == RESERVED else longest
    engine = Modelless(
        Scripted(),
        num_blocks=at_once * -(-context // block_size),
        block_size=block_size,
        max_num_seqs=at_once,
        max_rows=at_once * context,
        context=context,
    )
    served = [each for each in lengths if each.prompt + each.answer <= context]
    for i, each in enumerate(served):
        engine.offer(distinct_prompt(i, each.prompt), each.answer)
    slots = unfilled = steps = 0
    for moment in engine.steps():
        assert moment.record.num_preempted == 0, "there is room for all that run"
        slots += moment.record.kv_blocks_used * block_size
        unfilled += moment.record.kv_slots_unfilled
        steps += 1
    return Waste(slots, unfilled, steps, len(served), len(lengths) - len(served))


def count(lengths: Sequence[Lengths], block_size: int) -> tuple[int, int]:
    """Slots and unfilled slots by arithmetic: what the records have to come to."""
    slots = unfilled = 0
    for prompt, answer in lengths:
        for stored in range(prompt, prompt + answer):
            slots += -(-stored // block_size) * block_size
            unfilled += -stored % block_size
    return slots, unfilled


def figures(folder: Path) -> list[Figure]:
    return [
        figure(trace, azure_lengths(folder, trace), size)
        for trace, sizes in BLOCK_SIZES.items()
        for size in sizes
    ]


def figure(trace: str, lengths: Sequence[Lengths], block_size: int) -> Figure:
    waste = measure(lengths, block_size)
    fits = [each for each in lengths if block_size < RESERVED or sum(each) <= RESERVED]
    slots, unfilled = count(fits, block_size)
    ours, goal = 100 * waste.fraction, GOALS.get(trace, {}).get(block_size, 100.0)
    how = f"reserve {RESERVED}" if block_size == RESERVED else f"block {block_size}"
    return Figure(
        name=f"waste, Azure {trace}, {how}",
        ours=ours,
        unit="%",
        theirs=f"{REFERENCE[trace][block_size]} % counted from lengths",
        goal=f"{100 * unfilled / slots:.2f} % alone" + (f", <= {goal} %" if goal < 100 else ""),
        met=(waste.slots, waste.unfilled) == (slots, unfilled) and ours <= goal,
        counts={
            "slot_steps": waste.slots, "unfilled_slot_steps": waste.unfilled,
            "steps": waste.steps, "requests": waste.served, "refused": waste.refused,
        },
    )  # fmt: skip
