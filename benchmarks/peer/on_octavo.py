"""Octavo, measured in an interpreter of its own, as `octavo bench` does it."""

from __future__ import annotations

import time

from benchmarks.peer.worker import Options, serve
from benchmarks.peer.workloads import Workload
from octavo import LLM
from octavo.bench.workloads import greedy


class OnOctavo:
    def __init__(self, options: Options) -> None:
        self._llm = LLM(
            options.model, threads=options.threads, context=options.context,
            max_num_seqs=options.streams, step_ms=None,
            pack_cache=False,  # it would be written while others are measured
        )  # fmt: skip

    def measure(self, work: Workload, prompts: list[list[int]]) -> float:
        llm, streams = self._llm, len(prompts)
        before = llm.records[-1].step if llm.records else -1
        began = time.perf_counter()
        outputs = llm.generate(prompts, [greedy(each.new) for each in work.requests])
        seconds = time.perf_counter() - began
        if work.counted == "all":
            return work.new_tokens / seconds
        if work.counted == "prompt":
            (ttft,) = (each.metrics.ttft_ms for each in outputs)
            assert ttft is not None, "a prompt was run"
            return len(prompts[0]) / ttft * 1e3
        steps = [each for each in llm.records if each.step > before]
        whole = [
            each
            for each in steps
            if each.num_requests == each.computed_tokens == each.output_rows == streams
        ]
        # What lies between steps is counted, too.
        others = sum(each.seconds for each in steps) - sum(each.seconds for each in whole)
        return streams * len(whole) / (seconds - others)


if __name__ == "__main__":
    serve(OnOctavo)
