"""SamplingParams: how a request's tokens are drawn and when it ends. Frozen; checked once, when
made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

from octavo.errors import UsageError, unknown_option
from octavo.values import check_flag, check_number, check_whole, is_list, is_whole, plain, settle

_NOT_WITH_BEAMS = (
    *("top_k", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty"),
    *("seed", "stop", "logprobs", "prompt_logprobs"),
)


@dataclass(frozen=True, slots=True)
class Sampling:
    """What shapes a draw, every value decided. As it is made, nothing shapes it."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0

    @property
    def greedy(self) -> bool:
        """As float32, like the kernels: what is too small for it is 0."""
        return self.temperature <= 2.0**-150


_PLAIN = Sampling()


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """None means: `max_tokens` up to the context, `seed` drawn, and from `temperature` to
    `frequency_penalty` what the model's file recommends, else 1.0 and nothing else (`Sampling`).
    What was used is recorded in the output.

    A seed drawn at admission is recorded in the output, so that any answer can be repeated.
    `max_tokens` 0 draws nothing: with `prompt_logprobs`, and only with them, it scores the prompt.
    `n` answers share the prompt. `beam_width` searches for the likeliest answers instead of drawing
    them (score: log-probability / length ** length_penalty) and gives the `n` best.
    """

    max_tokens: int | None = None
    temperature: float | None = None  # 0 = greedy
    top_k: int | None = None  # 0 = all
    top_p: float | None = None  # 1 = all
    min_p: float | None = None  # 0 = all
    # over prompt and answer; > 1 discourages, 1 = none   (Keskar et al. 2019)
    repetition_penalty: float | None = None
    presence_penalty: float | None = None  # over the answer; 0 = none
    frequency_penalty: float | None = None  # over the answer; 0 = none
    seed: int | None = None
    stop: str | Sequence[str] = ()
    stop_token_ids: Sequence[int] = ()
    ignore_eos: bool = False
    logprobs: int | None = (
        None  # the drawn token's and this many of the likeliest; 0 = the drawn one's
    )
    prompt_logprobs: int | None = None  # the same of every prompt token but the first
    n: int = 1
    beam_width: int | None = None
    length_penalty: float = 1.0  # > 0 favours long answers   (Wu et al. 2016, without alpha's 5)
    early_stopping: bool = False  # True: end when `beam_width` answers are complete

    def __post_init__(self) -> None:
        settle(self)
        stops = (self.stop,) if isinstance(self.stop, str) else self.stop
        object.__setattr__(self, "stop", tuple(stops) if is_list(stops) else stops)
        ids = self.stop_token_ids
        object.__setattr__(self, "stop_token_ids", tuple(map(plain, ids)) if is_list(ids) else ids)
        least = 1 if self.prompt_logprobs is None else 0
        check_whole("max_tokens", self.max_tokens, least, 2**31 - 1)
        check_number("temperature", self.temperature, 0.0, 100.0)
        check_whole("top_k", self.top_k, 0, 2**31 - 1)
        check_number("top_p", self.top_p, 0.0, 1.0, above=True)
        check_number("min_p", self.min_p, 0.0, 1.0)
        check_number("repetition_penalty", self.repetition_penalty, 0.0, 100.0, above=True)
        check_number("presence_penalty", self.presence_penalty, -2.0, 2.0)
        check_number("frequency_penalty", self.frequency_penalty, -2.0, 2.0)
        check_whole("seed", self.seed, 0, 2**64 - 1)
        check_whole("logprobs", self.logprobs, 0, 20)
        check_whole("prompt_logprobs", self.prompt_logprobs, 0, 20)
        check_whole("n", self.n, 1, 64)
        check_whole("beam_width", self.beam_width, 1, 32)
        check_number("length_penalty", self.length_penalty, -10.0, 10.0)
        for name in ("ignore_eos", "early_stopping"):
            check_flag(name, getattr(self, name))
        if not is_list(self.stop) or not all(_is_text(s) for s in self.stop):
            raise UsageError(f"stop={self.stop!r}: expected a non-empty string or a list of them")
        if not is_list(ids) or not all(is_whole(t) and t >= 0 for t in self.stop_token_ids):
            raise UsageError(f"stop_token_ids={ids!r}: expected a list of token ids")
        self._check_beams()

    def _check_beams(self) -> None:
        """Beams are searched, not drawn: what shapes a draw has no meaning there."""
        if self.beam_width is None:
            for name in ("length_penalty", "early_stopping"):
                self._refuse_unless_default(name, "needs beam_width")
            return
        if self.n > self.beam_width:
            raise UsageError(f"n={self.n}: at most beam_width={self.beam_width}")
        if self.temperature:
            raise UsageError(f"temperature={self.temperature}: beam_width takes none, or 0")
        for name in _NOT_WITH_BEAMS:
            self._refuse_unless_default(name, "cannot be combined with beam_width")

    def _refuse_unless_default(self, name: str, why: str) -> None:
        value = getattr(self, name)
        default = next(f.default for f in fields(self) if f.name == name)
        if value not in (default, getattr(_PLAIN, name, default)):
            raise UsageError(f"{name}={value!r}: {why}")

    def filled(self, recommended: Sampling | None) -> SamplingParams:
        """These, and where they do not say how to draw, what is recommended, if anything is. Beams
        are searched, so that nothing is recommended for them."""
        if recommended is None or self.beam_width:
            return self
        given = {f.name: getattr(self, f.name) for f in fields(recommended)}
        open_ = [name for name, value in given.items() if value is None]
        return replace(self, **{name: getattr(recommended, name) for name in open_})

    def sampling(self) -> Sampling:
        """How to draw; where nothing is said, nothing shapes the draw."""
        given = {f.name: getattr(self, f.name) for f in fields(_PLAIN)}
        return Sampling(**{name: value for name, value in given.items() if value is not None})

    @classmethod
    def parse(cls, options: Mapping[str, object]) -> SamplingParams:
        """From names and values of outside (a request body, a file). An unknown name is an
        error."""
        known = [f.name for f in fields(cls)]
        for name in options:
            if name not in known:
                raise unknown_option("sampling option", name, known)
        return cls(**options)  # type: ignore[arg-type]  # __post_init__ checks every type


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""
