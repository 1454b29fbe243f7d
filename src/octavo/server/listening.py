"""The socket that a server listens on: a port of an address, or a path.

Knows no protocol.
"""

from __future__ import annotations

import contextlib
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from octavo.errors import UsageError
from octavo.server.config import ServerConfig


@contextlib.contextmanager
def listening(config: ServerConfig) -> Iterator[socket.socket]:
    """The socket to listen on. Raises UsageError where it cannot be had."""
    if config.uds is not None:
        listener, where = socket.socket(socket.AF_UNIX), config.uds
        if _is_socket(config.uds) and not _answers(config.uds):
            Path(config.uds).unlink()  # of a server that was killed
    else:
        family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
        # By its name: of a protocol that is only implied asyncio does not know that it is TCP, and
        # what is written waits for the reader to acknowledge what was written before (40 ms).
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        where = f"{config.host} port {config.port}"
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    with listener:
        try:
            listener.bind(config.uds or (config.host, config.port))
        except (OSError, UnicodeError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise UsageError(
                f"cannot listen on {where}: {(why or str(error)).lower()}; --host, --port and "
                "--uds say where"
            ) from None
        try:
            yield listener
        finally:
            if config.uds is not None:
                Path(config.uds).unlink(missing_ok=True)


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(Path(path).stat().st_mode)
    except OSError:
        return False


def _answers(path: str) -> bool:
    """One that may not be asked, or has no time, is somebody's."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return False
        except OSError:
            return True
    return True
