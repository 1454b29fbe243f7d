"""OpenAI's client (pip install openai): an answer in pieces, then one that a schema holds."""

import json

from openai import OpenAI

client = OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none needed")
for piece in client.chat.completions.create(
    model="smollm2",
    messages=[{"role": "user", "content": "Why is the sky blue?"}],
    max_tokens=24,
    stream=True,
):
    print(piece.choices[0].delta.content or "", end="", flush=True)
print()

answer = client.chat.completions.create(
    model="smollm2",
    messages=[{"role": "user", "content": "Is the sky blue? Answer in JSON."}],
    response_format={
        "type": "json_schema",
        "json_schema": {
            "name": "answer",
            "schema": {
                "type": "object",
                "properties": {"is_blue": {"type": "boolean"}},
                "required": ["is_blue"],
                "additionalProperties": False,
            },
        },
    },
)
print(json.loads(answer.choices[0].message.content or ""))
