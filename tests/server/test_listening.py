"""The socket that a server listens on, as the connections that come of it are."""

from __future__ import annotations

import asyncio
import socket

import pytest

from octavo.server.config import ServerConfig
from octavo.server.listening import listening


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_what_is_written_waits_for_no_acknowledgement(host: str) -> None:
    async def delay_is_off() -> bool:
        with listening(ServerConfig(host=host, port=0)) as listener:
            found = asyncio.get_running_loop().create_future()

            async def met(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                own = writer.get_extra_info("socket")
                found.set_result(own.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
                writer.close()

            async with await asyncio.start_server(met, sock=listener):
                _, writer = await asyncio.open_connection(host, listener.getsockname()[1])
                try:
                    return bool(await found)
                finally:
                    writer.close()

    assert asyncio.run(delay_is_off())
