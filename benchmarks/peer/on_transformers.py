"""transformers with torch, greedy, one batch of prompts of one length with its KV cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from benchmarks.peer.stepping import measured
from benchmarks.peer.worker import CannotError, Options, serve
from benchmarks.peer.workloads import Workload


class OnTransformers:
    def __init__(self, options: Options) -> None:
        torch.set_num_threads(options.threads)
        if options.directory:
            named = {"pretrained_model_name_or_path": options.directory}
        else:  # GGUF, which is unpacked
            path = Path(options.model)
            named = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
        self._model = AutoModelForCausalLM.from_pretrained(**named, dtype=torch.bfloat16).eval()
        self._next = torch.zeros(0)
        self._past = None
        self._have = 0

    def measure(self, work: Workload, prompts: list[list[int]]) -> float:
        if len(set(work.requests)) > 1:
            raise CannotError("a batch of its generate has one length, and waits for its longest")
        return measured(self, work, prompts)

    def begin(self, prompts: Sequence[Sequence[int]], new: Sequence[int]) -> None:
        self._next, self._past, self._have = torch.tensor(prompts), None, 0

    def step(self) -> Sequence[int]:
        with torch.inference_mode():
            out = self._model(
                self._next, past_key_values=self._past, use_cache=True, logits_to_keep=1
            )
        self._next, self._past = out.logits[:, -1].argmax(-1, keepdim=True), out.past_key_values
        self._have += 1
        return [self._have] * len(self._next)


if __name__ == "__main__":
    serve(OnTransformers)
