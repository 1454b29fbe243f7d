"""From a URL to what a load came to: the model is asked for, a first request tells whether the
server does what is needed, then the load is offered."""

from __future__ import annotations

from collections.abc import Callable

from octavo.bench.server_load.asks import Ask, arrivals, make_asks
from octavo.bench.server_load.client import Client, connect
from octavo.bench.server_load.config import LoadConfig
from octavo.bench.server_load.load import offer
from octavo.bench.server_load.stream import AskError, read_reply
from octavo.bench.server_load.summary import Summary, summarize
from octavo.errors import UsageError

_FIRST = Ask("Hello", 2)  # it is not measured, and may wake what sleeps until it is asked


async def run(
    url: str,
    key: str | None,
    config: LoadConfig,
    begins: Callable[[str], None],
    ended: Callable[[], None],
) -> Summary:
    """`begins` is told the model before the load begins, `ended` is called as each request ends.
    Raises AskError where already the first request fails."""
    asks = make_asks(config)
    async with connect(url, key, config) as client:
        model = config.model or await _only_model(url, client)
        try:
            read_reply(await client.ask(client.body(_FIRST, model)))
        except AskError as error:
            raise AskError(f"{url}: the first request failed: {error}") from None
        bodies = [client.body(ask, model) for ask in asks]
        begins(model)
        load = await offer(client, bodies, arrivals(config), config.concurrency, ended)
    return summarize(asks, load)


async def _only_model(url: str, client: Client) -> str:
    try:
        names = await client.models()
    except AskError as error:
        raise AskError(f"{url}: {error}") from None
    if not names:
        raise AskError(f"{url} lists no model: load one there, or name it by --model")
    if len(names) > 1:
        raise UsageError(f"{url} has several models ({', '.join(names)}): --model says which")
    return names[0]
