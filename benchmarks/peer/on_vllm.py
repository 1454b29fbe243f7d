"""vLLM's CPU build, in bf16 from a directory: its engine in this process, stepped."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.peer.stepping import measured
from benchmarks.peer.worker import CannotError, Options, serve
from benchmarks.peer.workloads import Workload

_KV_BYTES = 4 << 30  # unless told, it takes nine tenths of a memory that engines beside it share


class OnVLLM:
    def __init__(self, options: Options) -> None:
        if not options.directory:
            raise CannotError("it needs a directory in Hugging Face's layout: give --directory")
        from vllm import LLM  # not before the environment is known to be needed

        self._engine = LLM(
            options.directory, dtype="bfloat16", enforce_eager=True, skip_tokenizer_init=True,
            max_model_len=options.context, max_num_seqs=options.streams,
            kv_cache_memory_bytes=_KV_BYTES,
        ).llm_engine  # fmt: skip
        self._asked = 0
        self._have: dict[str, int] = {}

    def measure(self, work: Workload, prompts: list[list[int]]) -> float:
        return measured(self, work, prompts)

    def begin(self, prompts: Sequence[Sequence[int]], new: Sequence[int]) -> None:
        from vllm import SamplingParams

        self._have = {}
        for prompt, most in zip(prompts, new, strict=True):
            name = str(self._asked)
            params = SamplingParams(
                max_tokens=most, temperature=0, ignore_eos=True, detokenize=False
            )
            self._engine.add_request(name, {"prompt_token_ids": list(prompt)}, params)
            self._have[name] = 0
            self._asked += 1

    def step(self) -> Sequence[int]:
        for output in self._engine.step():
            self._have[output.request_id] = len(output.outputs[0].token_ids)
        return list(self._have.values())


if __name__ == "__main__":
    serve(OnVLLM)
