"""A running server, as a verb asks it: JSON in one answer. Knows no routes."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any
from urllib.parse import urlsplit

from octavo.environment import api_key
from octavo.errors import OctavoError, UsageError

_PATIENCE = 30.0  # seconds


class ServerError(OctavoError):
    """A server could not be asked, or it refused."""


class RunningServer:
    def __init__(self, url: str) -> None:
        """`url` is what `octavo serve` says: http://…, https://… or unix:FILE."""
        self._url = url
        self._path = ""  # that stands before all routes
        if url.startswith("unix:"):
            return
        try:
            parts = urlsplit(url)
            self._host, self._port = parts.hostname or "", parts.port
        except ValueError:
            raise self._no_url() from None
        if parts.scheme not in ("http", "https") or not self._host or parts.query or parts.username:
            raise self._no_url()
        self._path = parts.path.rstrip("/")
        self._scheme = parts.scheme

    def get(self, path: str) -> dict[str, Any]:
        return self._ask("GET", path)

    def post(self, path: str) -> dict[str, Any]:
        return self._ask("POST", path)

    def _ask(self, method: str, path: str) -> dict[str, Any]:
        """Raises ServerError where nobody answers, and with what a refusal says."""
        key = api_key()
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        connection = self._connection()
        try:
            connection.request(method, self._path + path, headers=headers)
            response = connection.getresponse()
            status, body = response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            why = error.strerror if isinstance(error, OSError) else type(error).__name__
            raise ServerError(
                f"no server answers at {self._url} ({(why or str(error)).lower()}); --url says "
                "where it is, and `octavo serve MODEL` starts one"
            ) from None
        except ValueError:  # a line break or a letter that no header has
            raise UsageError("OCTAVO_API_KEY and --url: expected plain letters alone") from None
        finally:
            connection.close()
        return self._read(status, body)

    def _read(self, status: int, body: bytes) -> dict[str, Any]:
        try:
            found = json.loads(body)
            if status == 200 and isinstance(found, dict):
                return found
            message = found["error"]["message"]
        except (ValueError, KeyError, TypeError):
            raise ServerError(f"{self._url} is no server of Octavo: it answers {status}") from None
        hint = "; OCTAVO_API_KEY has the key" if status == 401 else ""
        raise ServerError(f"{self._url}: {message}{hint}")

    def _connection(self) -> http.client.HTTPConnection:
        if self._url.startswith("unix:"):
            return _UnixConnection(self._url.removeprefix("unix:"))
        secure = self._scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        return kind(self._host, self._port, timeout=_PATIENCE)

    def _no_url(self) -> UsageError:
        return UsageError(f"url={self._url!r}: expected http://HOST:PORT, https://… or unix:FILE")


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_PATIENCE)
        self._socket_path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_PATIENCE)
        self.sock.connect(self._socket_path)
