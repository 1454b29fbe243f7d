"""One answer. Fetch the model first: `octavo pull smollm2`; or name a GGUF file."""

import sys

from octavo import LLM, SamplingParams

llm = LLM(sys.argv[1] if len(sys.argv) > 1 else "smollm2")
question = {"role": "user", "content": "Why is the sky blue?"}
output = llm.chat([question], SamplingParams(temperature=0, max_tokens=24))
print(output.outputs[0].text)
print(f"{output.usage.prompt_tokens} prompt tokens, {output.metrics.ttft_ms:.0f} ms to the first")
