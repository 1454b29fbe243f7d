"""Who calls: API keys and their tenants.

A key is kept as its SHA-256 alone, and every key is compared, each in constant time. Knows no HTTP
beyond the two headers that carry a key.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from octavo.errors import UsageError

_LEAST_LENGTH = 16  # characters of a key


@dataclass(frozen=True, slots=True)
class Tenant:
    """Whose a request is. Requests of one tenant share cached prefixes, and see its records."""

    name: str
    is_admin: bool = False

    def salt(self, own: str) -> str:
        """The cache's salt, of the tenant and the client's own: no two pairs give the same. Where
        there are no keys there is one tenant, without a name."""
        return f"{len(self.name)}:{self.name}{own}" if self.name else own


ANYBODY = Tenant("", is_admin=False)


class Keys:
    """The keys that open the server; without any it is open to all who reach it."""

    def __init__(self, lines: Iterable[str] = (), *, where: str = "", one_tenant: bool = False):
        """Read lines `key [tenant=NAME] [admin]`. Raises UsageError, which names the line."""
        self._tenants: dict[bytes, Tenant] = {}
        for number, line in enumerate(lines, start=1):
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            try:
                digest, tenant = _read_key(words, one_tenant)
                if digest in self._tenants:
                    raise UsageError("this key stands there twice")
            except UsageError as error:
                raise UsageError(f"{where}, line {number}: {error}") from None
            self._tenants[digest] = tenant

    @property
    def are_required(self) -> bool:
        return bool(self._tenants)

    @property
    def num_tenants(self) -> int:
        return len({tenant.name for tenant in self._tenants.values()})

    def tenant_of(self, headers: Mapping[bytes, bytes]) -> Tenant | None:
        """The tenant whose key these headers carry, None where there is none or it is wrong."""
        if not self._tenants:
            return ANYBODY
        scheme, _, bearer = headers.get(b"authorization", b"").partition(b" ")
        key = bearer.strip() if scheme.lower() == b"bearer" else headers.get(b"x-api-key", b"")
        digest = hashlib.sha256(key).digest()
        found = None
        for known, tenant in self._tenants.items():
            if hmac.compare_digest(known, digest):
                found = tenant
        return found


def _read_key(words: list[str], one_tenant: bool) -> tuple[bytes, Tenant]:
    key, *rest = words
    if len(key) < _LEAST_LENGTH:
        raise UsageError(f"a key of {len(key)} characters: at least {_LEAST_LENGTH}")
    digest = hashlib.sha256(key.encode()).digest()
    name, is_admin = digest.hex()[:16], False  # its own tenant
    for word in rest:
        what, _, value = word.partition("=")
        if what == "tenant" and value:
            name = value
        elif word == "admin":
            is_admin = True
        else:
            raise UsageError(f"{word!r} after the key: expected tenant=NAME or admin")
    return digest, Tenant("all" if one_tenant else name, is_admin)
