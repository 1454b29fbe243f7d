"""Plan: what a number of users of a model take, and how many of them a memory holds.

Comes in: bytes of weights, the pages of K and V as the engine has them, and what is asked for. Goes
out: sizes in bytes. Measures and reserves nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from octavo.planning.memory import KVPages

PROCESS_BYTES = 150_000_000  # Python, tables and activations: what RSS may hold beside both


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes in bytes; those of weights are None where they are not known."""

    model: str | None
    model_context: int | None  # None where there is no model to say it
    context: int
    users: int
    weight_bytes: float | None
    active_weight_bytes: float | None  # those that one token reads: of experts only its own
    kv_bytes_per_token: float  # K and V alone: users hold whole blocks
    pages: KVPages
    memory_bytes: int | None
    in_file_bytes: float  # of tables whose rows are read from the model's file, in no memory
    sliding_context: int | None = None  # tokens that are seen of a sequence that has no end
    kv_bytes_at_most: float | None = None  # then, of a user however many tokens there are
    expanded_kv_bytes_per_token: float | None = None  # of heads' own K and V, where pages keep less

    @property
    def kv_bytes_per_user(self) -> float:
        return float(self.pages.bytes_of(self.context))

    @property
    def kv_bytes(self) -> float:
        return self.users * self.kv_bytes_per_user

    @property
    def fixed_bytes(self) -> float:
        return (self.weight_bytes or 0) + PROCESS_BYTES

    @property
    def total_bytes(self) -> float:
        return self.fixed_bytes + self.kv_bytes

    @property
    def users_that_fit(self) -> int:
        """Users of this context that the memory holds."""
        return int(self._room // self.kv_bytes_per_user)

    @property
    def context_that_fits(self) -> int:
        """Tokens for each of these users that the memory holds, of those that the model has."""
        room = self._room / self.users
        if self.model_context is None or self.sliding_context is not None:
            return self.pages.tokens_in(room)
        most = max(self.model_context, self.context)  # which some models may exceed
        return min(self.pages.tokens_in(room, most), most)

    @property
    def fits(self) -> bool:
        return self.memory_bytes is None or self.total_bytes <= self.memory_bytes

    def to_dict(self) -> dict[str, object]:
        found: dict[str, object] = {
            "model": self.model,
            "model_context": self.model_context,
            "context": self.context,
            "users": self.users,
            "weight_bytes": self.weight_bytes,
            "active_weight_bytes": self.active_weight_bytes,
            "in_file_bytes": self.in_file_bytes,
            "kv_bytes_per_token": self.kv_bytes_per_token,
            "expanded_kv_bytes_per_token": self.expanded_kv_bytes_per_token,
            "memory_bytes": self.memory_bytes,
            "process_bytes": PROCESS_BYTES,
            "kv_bytes_per_user": self.kv_bytes_per_user,
            "kv_bytes": self.kv_bytes,
            "total_bytes": self.total_bytes,
        }
        if self.sliding_context is not None:
            found |= {
                "sliding_context": self.sliding_context,
                "kv_bytes_at_most": self.kv_bytes_at_most,
            }
        if self.memory_bytes is not None:
            found |= {
                "fits": self.fits,
                "users_that_fit": self.users_that_fit,
                "context_that_fits": self.context_that_fits,
            }
        return found

    @property
    def _room(self) -> float:
        return max(0.0, (self.memory_bytes or 0) - self.fixed_bytes)
