"""Anthropic's client (pip install anthropic): an answer in pieces, and what its prompt took."""

from anthropic import Anthropic

client = Anthropic(base_url="http://127.0.0.1:8000", api_key="none needed")
with client.messages.stream(
    model="smollm2",
    max_tokens=24,
    messages=[{"role": "user", "content": "Why is the sky blue?"}],
) as stream:
    for text in stream.text_stream:
        print(text, end="", flush=True)
    print(f"\n{stream.get_final_message().usage.input_tokens} tokens of the prompt were computed")
