"""Calls as text, as a model would have written them.

Arguments that are a text were no JSON when the model wrote them: they stay as they are.
"""

from __future__ import annotations

import json


def call_text(name: str, key: str, arguments: object) -> str:
    return f'{{"name": {json.dumps(name)}, "{key}": {arguments_text(arguments)}}}'


def arguments_text(arguments: object) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
