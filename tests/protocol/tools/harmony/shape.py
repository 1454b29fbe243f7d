"""A chat template in the shape of Harmony's: one call of a message, reasoning of earlier turns only
before calls that no final message follows, and another end behind a last answer."""

from __future__ import annotations

TEMPLATE = (
    "<|start|>system<|message|>Effort: {{ reasoning_effort | default('medium') }}<|end|>"
    "{% if tools %}<|start|>developer<|message|>{{ tools | tojson }}<|end|>{% endif %}"
    "{% set at = namespace(name=none, final=-1) %}"
    "{% for m in messages %}{% if m.role == 'assistant' and not m.tool_calls %}"
    "{% set at.final = loop.index0 %}{% endif %}{% endfor %}"
    "{% for m in messages %}"
    "{% if m.role == 'assistant' and m.tool_calls %}"
    "{% if m.thinking and m.content %}{{ raise_exception('two thoughts') }}{% endif %}"
    "{% set thought = m.thinking or m.content %}"
    "{% if thought and at.final < loop.index0 %}"
    "<|start|>assistant<|channel|>analysis<|message|>{{ thought }}<|end|>{% endif %}"
    "{% set call = m.tool_calls[0].function %}{% set at.name = call.name %}"
    "<|start|>assistant to=functions.{{ call.name }}<|channel|>commentary json<|message|>"
    "{{ call.arguments | tojson }}<|call|>"
    "{% elif m.role == 'assistant' %}"
    "{% if loop.last and not add_generation_prompt and m.thinking %}"
    "<|start|>assistant<|channel|>analysis<|message|>{{ m.thinking }}<|end|>{% endif %}"
    "<|start|>assistant<|channel|>final<|message|>{{ m.content }}"
    "{{ '<|return|>' if loop.last and not add_generation_prompt else '<|end|>' }}"
    "{% elif m.role == 'tool' %}"
    "{% if at.name is none %}{{ raise_exception('a result of no call') }}{% endif %}"
    "<|start|>functions.{{ at.name }} to=assistant<|channel|>commentary<|message|>"
    "{{ m.content | tojson }}<|end|>"
    "{% else %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
BEGUN = "<|start|>system<|message|>Effort: medium<|end|>"
