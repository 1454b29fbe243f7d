"""SamplingParams: how a request's tokens are drawn and when it ends. Frozen; checked once, when
made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

from octavo.errors import UsageError
from octavo.options import check, described, option, options_of, parse_options
from octavo.values import is_list, is_number, is_whole, plain

_MOST = 2**31 - 1
MOST_BIASES = 1024
NOT_WITH_BEAMS = (
    *("top_k", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty"),
    *("logit_bias", "seed", "stop", "logprobs", "prompt_logprobs"),
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
        """Whether the likeliest token is taken: the temperature is 0, or too small for a float32,
        which is what the kernels take."""
        return self.temperature <= 2.0**-150

    @property
    def cuts(self) -> bool:
        """Whether some tokens are out of reach, so that the draw has to see the whole row."""
        return self.top_k > 0 or self.top_p < 1 or self.min_p > 0

    @property
    def penalises(self) -> bool:
        """Whether tokens that were said before are made more or less likely."""
        return self.repetition_penalty != 1 or self.weighs_answer

    @property
    def weighs_answer(self) -> bool:
        """Whether those of the answer alone are."""
        return self.presence_penalty != 0 or self.frequency_penalty != 0


_PLAIN = Sampling()


def _parse_texts(name: str, value: object) -> tuple[str, ...]:
    found = (value,) if isinstance(value, str) else tuple(value) if is_list(value) else value
    if not isinstance(found, tuple) or not all(isinstance(text, str) and text for text in found):
        raise UsageError(f"{name}={found!r}: expected a non-empty string or a list of them")
    return found


def parse_ids(name: str, value: object) -> tuple[int, ...]:
    ids = tuple(map(plain, value)) if is_list(value) else None
    if ids is None or not all(is_whole(each) and each >= 0 for each in ids):
        raise UsageError(f"{name}={value!r}: expected a list of token ids")
    return ids  # type: ignore[return-value]  # checked


def _parse_biases(name: str, value: object) -> dict[int, float] | None:
    """Biases by token id, in order; None for none. In JSON an id is a text."""
    expected = "expected token ids, each with a number from -100 to 100"
    if not isinstance(value, Mapping):
        raise UsageError(f"{name}={value!r}: {expected}")
    if len(value) > MOST_BIASES:
        raise UsageError(f"{name}={len(value):,} token ids: expected at most {MOST_BIASES:,}")
    found: dict[int, float] = {}
    for key, given in value.items():
        is_digits = isinstance(key, str) and key.isascii() and key.isdigit() and len(key) <= 10
        token, bias = int(key) if is_digits else plain(key), plain(given)
        if token in found:
            raise UsageError(f"{name} has {token} twice: expected each token id once")
        if not (
            is_whole(token) and 0 <= token <= _MOST and is_number(bias) and -100 <= bias <= 100
        ):
            raise UsageError(f"{name}={ {key: given}!r}: {expected}")
        found[token] = float(bias)
    return dict(sorted(found.items())) or None


@described
@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How a request's tokens are drawn and when it ends.

    None means: `max_tokens` up to the context, or as many as one that slides has, `seed` drawn,
    and from `temperature` to `frequency_penalty` what the model's file recommends, else 1.0 and
    nothing else (`Sampling`). What was used is recorded in the output.

    A seed drawn when it is queued is recorded in the output, so that any answer can be repeated.
    `max_tokens` 0 draws nothing: the prompt is computed and can be found, and with
    `prompt_logprobs` it is scored.
    `n` answers share the prompt. `beam_width` searches for the likeliest answers instead of drawing
    them (score: log-probability / length ** length_penalty) and gives the `n` best.
    """

    max_tokens: int | None = option(
        None,
        "Stop after this many tokens; default: up to the context, or N of one that slides",
        0,
        _MOST,
    )
    temperature: float | None = option(
        None, "0 takes the likeliest token", 0, 100, flag="; default: the makers', else 0.7"
    )
    top_k: int | None = option(None, "Draw from this many likeliest tokens; 0 = all", 0, _MOST)
    top_p: float | None = option(
        None, "Draw from the likeliest tokens that make up this probability; 0: the likeliest",
        0, 1, flag="; default: the makers', else 0.9",
    )  # fmt: skip
    min_p: float | None = option(
        None, "Leave out tokens below this share of the likeliest one's probability", 0, 1
    )
    repetition_penalty: float | None = option(  # Keskar et al. 2019
        None, "Above 1 discourages tokens of the prompt and the answer", 0, 100, above=True
    )
    presence_penalty: float | None = option(
        None, "Subtracted from the logits of tokens in the answer", -2, 2
    )
    frequency_penalty: float | None = option(
        None, "The same, times how often the token stands there", -2, 2
    )
    logit_bias: Mapping[int, float] | None = option(
        None, "Added to the logits of these token ids, -100 to 100 each",
        parse=_parse_biases, flag=None, hash=False,
    )  # fmt: skip
    seed: int | None = option(
        None, "Makes the draw repeatable; default: drawn, and told in the output", 0, 2**64 - 1,
        flag=" (--json)",
    )  # fmt: skip
    stop: str | Sequence[str] = option(
        (), "End before this text; it may name a control token", parse=_parse_texts, escapes=True
    )
    stop_token_ids: Sequence[int] = option((), "End at this token id", parse=parse_ids)
    ignore_eos: bool = option(False, "Go on past the model's end token")
    logprobs: int | None = option(
        None, "Give log-probabilities of each token and this many others", 0, 20, flag=" (--json)"
    )
    prompt_logprobs: int | None = option(
        None, "The same of the prompt's tokens; nothing is reused for it", 0, 20
    )
    n: int = option(1, "Draw this many answers; they share the prompt", 1, 64)
    beam_width: int | None = option(
        None, "Search for the likeliest answers with this many beams; gives the n best", 1, 32
    )
    length_penalty: float = option(  # Wu et al. 2016, without alpha's 5
        1.0, "With beams: above 1 favours long answers, below 1 short ones", -10, 10
    )
    early_stopping: bool = option(False, "With beams: end when that many answers are complete")

    def __post_init__(self) -> None:
        check(self)
        self._check_beams()

    def _check_beams(self) -> None:
        """Beams are searched, not drawn: what shapes a draw has no meaning there."""
        if self.beam_width is None:
            for name in ("length_penalty", "early_stopping"):
                self._refuse_unless_default(name, "needs beam_width")
            return
        if self.n > self.beam_width:
            raise UsageError(f"n={self.n}: at most beam_width={self.beam_width}")
        if self.max_tokens == 0:
            raise UsageError("max_tokens=0: cannot be combined with beam_width")
        if self.temperature:
            raise UsageError(f"temperature={self.temperature}: beam_width takes none, or 0")
        for name in NOT_WITH_BEAMS:
            self._refuse_unless_default(name, "cannot be combined with beam_width")

    def _refuse_unless_default(self, name: str, why: str) -> None:
        value = getattr(self, name)
        (default,) = (each.default for each in options_of(type(self)) if each.name == name)
        if value not in (default, getattr(_PLAIN, name, default)):
            raise UsageError(f"{name}={value!r}: {why}")

    @property
    def width(self) -> int:
        """How many answers, or beams, grow at once."""
        return self.beam_width or self.n

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
        """Make parameters from names and values of outside (a request body, a file). An unknown
        name is an error."""
        return parse_options(cls, "sampling option", options)
