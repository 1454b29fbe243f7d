"""/tokenize, /detokenize, /tokenizer_info and /apply-template: what the model reads."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from functools import partial

from octavo.protocol.bodies import BodyError
from octavo.protocol.tokens import parse_detokenize, parse_template, parse_tokenize
from octavo.server.exchange import Exchange
from octavo.server.generation import beside, prompt_of, read

_NO_LIMIT = sys.maxsize  # with one, a long text is encoded in pieces: other threads run in between


async def tokenize(exchange: Exchange) -> None:
    loaded = exchange.service.loaded
    request = await read(exchange, parse_tokenize)
    loaded.check_name(request.model)
    tokenizer = loaded.engine.tokenizer
    with loaded.admission.enter(exchange.tenant.name):
        if request.chat is not None:
            ids, _ = await prompt_of(exchange, request.chat)
        else:
            encode = partial(tokenizer.encode, add_special=request.adds_special, limit=_NO_LIMIT)
            ids = await asyncio.to_thread(encode, request.prompt or "")
        texts = None
        if request.wants_texts:
            texts = await asyncio.to_thread(_texts, tokenizer.token_bytes, ids)
    await exchange.respond(
        {
            "count": len(ids),
            "max_model_len": loaded.engine.info.context,
            "tokens": ids,
            "token_strs": texts,
        }
    )


async def detokenize(exchange: Exchange) -> None:
    loaded = exchange.service.loaded
    request = await read(exchange, parse_detokenize)
    loaded.check_name(request.model)
    tokenizer = loaded.engine.tokenizer
    wrong = max(request.tokens, default=0)
    if wrong >= tokenizer.vocab_size:
        raise BodyError(f"tokens has {wrong}: expected 0 to {tokenizer.vocab_size - 1}", "tokens")
    decode = partial(tokenizer.decode, request.tokens, skip_special=False)
    await exchange.respond({"prompt": await beside(len(exchange.body), decode)})


async def info(exchange: Exchange) -> None:
    """What clients ask who tokenise by themselves."""
    loaded = exchange.service.loaded
    tokenizer = loaded.engine.tokenizer
    spec = tokenizer.spec
    template = loaded.chat_template or loaded.engine.template_for(tools=False)
    names = {
        name: None if token_id is None else spec.tokens[token_id]
        for name, token_id in (("bos_token", spec.bos_id), ("eos_token", spec.eos_id))
    }
    await exchange.respond(
        {
            "tokenizer_class": "octavo",
            "vocab_size": tokenizer.vocab_size,
            "model_max_length": loaded.engine.info.context,
            **names,
            "pad_token": None,
            "eos_token_ids": sorted(tokenizer.eos_ids),
            "chat_template": template,
        }
    )


async def apply_template(exchange: Exchange) -> None:
    loaded = exchange.service.loaded
    request = await read(exchange, parse_template)
    loaded.check_name(request.model)
    with loaded.admission.enter(exchange.tenant.name):
        ids, _ = await prompt_of(exchange, request)
    text = loaded.engine.tokenizer.decode(ids, skip_special=False)
    await exchange.respond({"prompt": text})


def _texts(bytes_of: Callable[[int], bytes], ids: Sequence[int]) -> list[str]:
    return [bytes_of(each).decode("utf-8", "replace") for each in ids]
