"""Questions about one document, asked at once: they run as one batch, the document only once."""

import asyncio
import sys

from octavo import LLM, AsyncEngine, SamplingParams

DOCUMENT = """The lighthouse of Skerry was built in 1884 by Anna Lund, who had lost two brothers at
sea. Its lamp burned whale oil until 1911 and gas until 1956; since then it has been electric. The
last keeper, Tom Reed, left in 1987 with his dog, and grey seals have the island to themselves."""
QUESTIONS = ("When was the lighthouse built?", "Who was the last keeper?", "When did he leave?")


async def answer(engine: AsyncEngine, question: str) -> str:
    system = {"role": "system", "content": f"Answer from this text.\n{DOCUMENT}"}
    prompt = await engine.encode_chat([system, {"role": "user", "content": question}])
    output = await engine.generate(prompt, SamplingParams(temperature=0, max_tokens=24))
    return f"{question} {output.outputs[0].text}\n[{output.usage}]"


async def main(model: str) -> None:
    async with AsyncEngine(LLM(model)) as engine:
        answers = [answer(engine, question) for question in QUESTIONS]
        print(*await asyncio.gather(*answers), sep="\n")


asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "smollm2"))
