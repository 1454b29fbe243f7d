"""Chats with one system prompt, streamed: the prompt is computed for the first of them only."""

import sys

from octavo import LLM, SamplingParams

SYSTEM = {"role": "system", "content": "You are a patient teacher. Answer in one short sentence."}

llm = LLM(sys.argv[1] if len(sys.argv) > 1 else "smollm2")
for question in ("What is rain?", "What is wind?", "What is snow?"):
    chat = [SYSTEM, {"role": "user", "content": question}]
    for chunk in llm.chat_stream(chat, SamplingParams(temperature=0, max_tokens=24)):
        print(chunk.text, end="", flush=True)
        if chunk.output:  # on the last chunk
            print(f"\n[{chunk.output.usage}]")
