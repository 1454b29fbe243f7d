"""OpenVINO GenAI, which reads GGUF files itself: its continuous batching, stepped."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import openvino
import openvino_genai

from benchmarks.peer.stepping import measured
from benchmarks.peer.worker import Options, serve
from benchmarks.peer.workloads import Workload

_BLOCK = 32  # tokens of its KV cache; what is allocated grows by them


class OnOpenVINO:
    def __init__(self, options: Options) -> None:
        config = openvino_genai.SchedulerConfig()
        config.max_num_seqs = options.streams
        config.max_num_batched_tokens = 2048
        config.enable_prefix_caching = True
        properties = {"INFERENCE_NUM_THREADS": options.threads}
        self._pipe = openvino_genai.ContinuousBatchingPipeline(
            options.model, config, "CPU", properties
        )
        self._handles: list[openvino_genai.GenerationHandle] = []
        self._have: list[int] = []
        self._asked = 0

    def measure(self, work: Workload, prompts: list[list[int]]) -> float:
        return measured(self, work, prompts)

    def begin(self, prompts: Sequence[Sequence[int]], new: Sequence[int]) -> None:
        self._have, self._handles = [0] * len(new), []
        for prompt, most in zip(prompts, new, strict=True):
            config = openvino_genai.GenerationConfig()
            config.max_new_tokens, config.do_sample, config.ignore_eos = most, False, True
            ids = openvino.Tensor(np.array([prompt], np.int64))
            self._handles.append(self._pipe.add_request(self._asked, ids, config))
            self._asked += 1

    def step(self) -> Sequence[int]:
        self._pipe.step()
        for i, handle in enumerate(self._handles):
            while handle.can_read():
                self._have[i] += sum(len(each.generated_ids) for each in handle.read().values())
        return self._have


if __name__ == "__main__":
    serve(OnOpenVINO)
