"""Requests resident at once in one KV budget: paged, and with the longest context reserved.

Both run through the same scheduler, which admits what fits and takes blocks back from who came
last; reserving is paging with blocks of the whole context. Only steps that leave requests waiting
are counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from benchmarks.data import Lengths, azure_lengths
from benchmarks.figure import Figure
from benchmarks.modelless import Modelless, Scripted, distinct_prompt
from benchmarks.waste import RESERVED

BUDGET = 16 * RESERVED  # tokens of K and V
BLOCK_SIZE = 32
EVERY = 4  # of the trace's requests, one in so many: both runs within a minute
WARM_UP = 700  # steps; longer than nearly every answer, so that requests of all ages run
GOAL = 5.0
# Requests at once, vLLM over Orca (Max), OPT-13B, ShareGPT: Kwon et al., SOSP 2023, section 6.2.
PAPER = 4.3


@dataclass(frozen=True, slots=True)
class Residents:
    mean: float  # requests that hold blocks, over steps that left requests waiting
    steps: int
    served: int
    refused: int
    preempted: int


def measure(
    lengths: Sequence[Lengths], block_size: int, *, budget: int = BUDGET, warm_up: int = WARM_UP
) -> Residents:
    context = min(RESERVED, budget)
    engine = Modelless(
        Scripted(),
        num_blocks=budget // block_size,
        block_size=block_size,
        max_num_seqs=min(budget, 4096),  # more than memory ever holds
        max_rows=2 * budget,  # a prompt takes one step: memory alone is what requests wait for
        context=context,
    )
    served = [each for each in lengths if each.prompt + each.answer <= context]
    for i, each in enumerate(served):
        engine.offer(distinct_prompt(i, each.prompt), each.answer)
    running, preempted = [], 0
    for moment in engine.steps():
        preempted += moment.record.num_preempted
        if moment.record.step >= warm_up and moment.record.num_waiting:
            running.append(moment.num_running)
    refused = len(lengths) - len(served)
    return Residents(fmean(running), len(running), len(served), refused, preempted)


def figures(folder: Path) -> list[Figure]:
    lengths = azure_lengths(folder, "conv")[::EVERY]
    return [figure(lengths)]


def figure(lengths: Sequence[Lengths], *, budget: int = BUDGET, warm_up: int = WARM_UP) -> Figure:
    paged = measure(lengths, BLOCK_SIZE, budget=budget, warm_up=warm_up)
    reserved = measure(lengths, RESERVED, budget=budget, warm_up=warm_up)
    ratio = paged.mean / reserved.mean
    return Figure(
        name=f"requests resident in {budget} tokens of KV, block {BLOCK_SIZE} / reserve {RESERVED}",
        ours=ratio,
        unit="x",
        theirs=f"{PAPER} x (OPT-13B, Orca Max)",
        goal=f">= {GOAL:g} x",
        met=ratio >= GOAL,
        counts={
            "paged": paged.mean, "reserved": reserved.mean, "requests": paged.served,
            "refused": paged.refused, "paged_preemptions": paged.preempted,
            "paged_steps": paged.steps, "reserved_steps": reserved.steps,
        },
    )  # fmt: skip
