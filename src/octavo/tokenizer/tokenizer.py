"""The tokenizer of one model: text to ids, ids to bytes and text, chats to ids.

Comes in: a `TokenizerSpec`. Text is encoded plain unless the caller says `parse_special`: what a
user types never becomes a control token. Decoding is defined on bytes: the bytes of all shown
tokens are joined and read as UTF-8, bad bytes becoming U+FFFD as Python's `errors="replace"` does.
Knows no model files and no requests.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tokenizers

from octavo.errors import UsageError
from octavo.tokenizer import chat, plain_text
from octavo.tokenizer.control_names import ends, ends_of_parts
from octavo.tokenizer.long_text import LongTexts, TooManyTokensError
from octavo.tokenizer.messages import read_messages, read_tools
from octavo.tokenizer.spec import TokenizerSpec
from octavo.tokenizer.special import Fragment, SpecialMatcher, without_white
from octavo.tokenizer.spm import SPACE
from octavo.tokenizer.template_clock import clock
from octavo.tokenizer.token_bytes import bytes_of

if TYPE_CHECKING:
    from octavo.tokenizer.chat_template import ChatTemplate

_LONG = 1 << 15  # characters: what has no more is encoded at once
_PIECE = 1 << 13  # of what has more: some 10 ms, in which no other thread runs Python

logger = logging.getLogger(__name__)


class Tokenizer:
    """Turns text into token ids and back. Build it with `from_spec`."""

    def __init__(self, spec: TokenizerSpec, plain: tokenizers.Tokenizer) -> None:
        self.spec = spec
        self._plain = plain
        self._bytes: dict[int, bytes] = {}  # of tokens that were asked for
        control = {spec.tokens[i]: i for i in sorted(spec.control_ids) if spec.tokens[i]}
        self._control_by_name = control
        opaque = (spec.tokens[i] for i in spec.user_defined_ids)
        self._specials = SpecialMatcher(control, opaque)
        stated = {i for i in (spec.eos_id, spec.eot_id, *spec.end_ids) if i is not None}
        # Stated as an end, what ends a part (as a channel) would cut answers at the first.
        stated -= {control[name] for name in ends_of_parts(control)}
        self.eos_ids = frozenset(stated | {control[name] for name in ends(control)})

    @classmethod
    def from_spec(cls, spec: TokenizerSpec, *, cache_dir: Path | None = None) -> Tokenizer:
        """Build the tokenizer; what takes long is kept in `cache_dir`, and taken from there."""
        _tell_what_was_mended(spec)
        return cls(spec, plain_text.build(spec, cache_dir))

    @property
    def vocab_size(self) -> int:
        return len(self.spec.tokens)

    @property
    def bos_id(self) -> int | None:
        return self.spec.bos_id

    @cached_property
    def longest_token_bytes(self) -> int:
        """The most UTF-8 bytes of text that one token stands for; a control token is its name.

        n bytes are at least n / longest_token_bytes tokens, save where text shrinks on its way: a
        vocabulary without some byte drops it (bpe), joins characters it does not know into one
        token (spm without byte tokens), or composes characters first (NFC, of qwen2).
        """
        spec = self.spec
        # a character of other bpe pieces stands for one byte
        as_it_is = {*spec.control_ids, *spec.user_defined_ids}
        spelt = range(len(spec.tokens)) if spec.kind == "spm" else as_it_is
        blank = SPACE if spec.kind == "spm" else " "  # a text may spell either
        pieces = [spec.tokens[i].replace(" ", blank) for i in spelt]
        sizes = [len(piece.encode("utf-8", "surrogatepass")) for piece in pieces]
        return max([1, *sizes, *map(len, spec.tokens)])

    def control_id(self, name: str) -> int | None:
        """The id of the control token of this name, None where there is none."""
        return self._control_by_name.get(name)

    def is_control(self, token_id: int) -> bool:
        """Whether the token steers the model and is no text."""
        self._check(token_id)
        return token_id in self.spec.control_ids

    def encode(
        self,
        text: str,
        *,
        add_special: bool = True,
        parse_special: bool = False,
        limit: int | None = None,
    ) -> list[int]:
        """Ids of `text`, BOS and EOS as the model asks; a BOS in the text is not doubled.

        With a `limit`, no more of a long text is encoded than tells that it has more tokens: then
        TooManyTokensError.
        """
        self._refuse_at_once(text, limit)
        fragments = self._split(text) if parse_special else ([text] if text else [])
        ids = self._encode_fragments(fragments, limit)
        if add_special:
            ids = self._with_bos(ids)
            if self.spec.add_eos and self.spec.eos_id is not None:
                ids.append(self.spec.eos_id)
        return ids

    def encode_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        end: chat.ChatEnd = "answer",
        chat_template: str | None = None,
        parse_special: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        template_args: Mapping[str, Any] | None = None,
        limit: int | None = None,
    ) -> list[int]:
        """Ids of a chat; only the template spells special tokens, unless `parse_special`. `limit`
        as in `encode`. `messages` as `octavo.tokenizer.messages` says: text parts are joined, what
        is not `role` or `content` is handed on to the template. `tools` choose it and go to it.
        `end` says where they end."""
        messages, tools = read_messages(messages), read_tools(tools)
        check = partial(self._refuse_at_once, limit=limit)
        template = self.chat_template(chat_template, tools=tools is not None, check=check)
        args = {"strftime_now": clock(), **(template_args or {})}
        args["add_generation_prompt"] = end == "answer"
        if tools is not None:
            args["tools"] = tools
        word = None
        if end == "open":
            messages, word = chat.left_open(messages)
        try:
            text = chat.rendered(template, messages, args)
        except UsageError:  # a message that is too long alone may be more than a template can make
            for message in messages:
                check(message.get("content") or "")
            raise
        check(text)
        if parse_special:
            fragments = self._split(text)
        else:
            found = chat.fragments(template, self._specials, messages, args, text)
            fragments = self._stripped(found)
        if word is not None:
            fragments = chat.cut(fragments, word)
        return self._with_bos(self._encode_fragments(fragments, limit))

    def chat_template(
        self,
        source: str | None = None,
        *,
        tools: bool = False,
        check: Callable[[str], None] | None = None,
    ) -> ChatTemplate:
        """The template given, else the model's own, of a chat with `tools` or without; `check` as
        in ChatTemplate."""
        if source is not None and not source.strip():
            raise UsageError("the chat template given is blank: leave it out for the model's own")
        source = self.spec.template_for(tools=tools) if source is None else source
        if source is None:
            raise UsageError(
                "this model has no chat template: give one with --chat-template,"
                " or send a plain prompt instead of messages"
            )
        # Here: Jinja takes an eighth of the imports of a start, which may see no chat.
        from octavo.tokenizer.chat_template import ChatTemplate

        bos, eos = self._text_of(self.spec.bos_id), self._text_of(self.spec.eos_id)
        return ChatTemplate(source, bos, eos, check=check)

    def decode(
        self, ids: Iterable[int], *, skip_special: bool = True, continuation: bool = False
    ) -> str:
        """Text of `ids`; a `continuation` follows other text and keeps SPM's blank in front."""
        data = b"".join(self.shown_bytes(i, skip_special=skip_special) for i in ids)
        if self.spec.add_space_prefix and not continuation:
            data = data.removeprefix(b" ")
        return data.decode("utf-8", "replace")

    def shown_bytes(self, token_id: int, *, skip_special: bool) -> bytes:
        """Return what the token adds to a decoded text: nothing for a control token that is
        skipped."""
        if skip_special and self.is_control(token_id):
            return b""
        return self.token_bytes(token_id)

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes a token stands for; a control token stands for its name."""
        found = self._bytes.get(token_id)
        if found is None:
            self._check(token_id)
            found = self._bytes[token_id] = bytes_of(self.spec, token_id)
        return found

    @cached_property
    def _long_texts(self) -> LongTexts:
        return LongTexts(self.spec, self.longest_token_bytes)

    def _refuse_at_once(self, text: str, limit: int | None) -> None:
        if limit is not None and len(text) > _LONG:
            if self.spec.strip_left or self.spec.strip_right:
                text = "".join(text.split())  # white space may leave no token
            count = self._long_texts.least_tokens(text)
            if count > limit:
                raise TooManyTokensError(count)

    def _split(self, text: str) -> list[Fragment]:
        return self._stripped(self._specials.split(text))

    def _stripped(self, fragments: list[Fragment]) -> list[Fragment]:
        left, right = self.spec.strip_left, self.spec.strip_right
        return without_white(fragments, left, right) if left or right else fragments

    def _encode_fragments(self, fragments: Iterable[Fragment], limit: int | None) -> list[int]:
        ids: list[int] = []
        for part in self._parts(fragments, whole=limit is None):
            if limit is not None and len(ids) > limit:
                raise TooManyTokensError(len(ids))
            ids += [part] if isinstance(part, int) else self.encode_plain(part)
        return ids

    def _parts(self, fragments: Iterable[Fragment], *, whole: bool) -> Iterator[Fragment]:
        """Text at the start and after a special token gets the blank the model wants in front."""
        for number, fragment in enumerate(fragments):
            if isinstance(fragment, int):
                yield fragment
                continue
            text = " " + fragment if self._is_prefixed(fragment, number) else fragment
            if whole or len(text) <= _LONG:
                yield text
            else:
                yield from self._long_texts.pieces(text, _PIECE)

    def _is_prefixed(self, fragment: str, number: int) -> bool:
        spec = self.spec
        if not spec.add_space_prefix:
            return False
        blanks = (" ", SPACE) if spec.kind == "spm" else (" ",)
        if spec.prefix_bare_only and fragment.startswith(blanks):
            return False
        return not spec.prefix_first_only or (number == 0 and not self._begins_defined(fragment))

    def _begins_defined(self, text: str) -> bool:
        """Whether a token that is found in any text begins this one."""
        return any(text.startswith(self.spec.tokens[i]) for i in self.spec.user_defined_ids)

    def encode_plain(self, text: str) -> list[int]:
        """Return the ids of a text in which no token is named. Raises UsageError."""
        try:
            return self._plain.encode(text, add_special_tokens=False).ids
        except TypeError:  # what the library says to a string that has no UTF-8
            place = next((i for i, c in enumerate(text) if "\ud800" <= c <= "\udfff"), None)
            if place is None:
                raise
            raise UsageError(
                f"the text is not valid Unicode: {text[place]!a} is half a surrogate pair"
            ) from None

    def _with_bos(self, ids: list[int]) -> list[int]:
        bos = self.spec.bos_id
        if bos is None or not self.spec.add_bos or ids[:1] == [bos]:
            return ids
        return [bos, *ids]

    def _text_of(self, token_id: int | None) -> str:
        return "" if token_id is None else self.spec.tokens[token_id]

    def _check(self, token_id: int) -> None:
        if not 0 <= token_id < self.vocab_size:
            raise UsageError(f"token id {token_id} is outside the vocabulary of {self.vocab_size}")


def _tell_what_was_mended(spec: TokenizerSpec) -> None:
    """Log what the file says of its tokens and cannot mean."""
    if spec.retyped_ids:
        names = ", ".join(repr(spec.tokens[i]) for i in spec.retyped_ids)
        logger.warning("the model's file types %s as text: taken for control tokens", names)
    odd = [
        f"token {i} ({spec.tokens[i]!r}) is taken for 0x{byte:02x}"
        for i, byte in spec.byte_of.items()
        if spec.tokens[i].lower() != f"<0x{byte:02x}>"
    ]
    if odd:
        logger.warning("the model's file has bytes that are not named so: %s", ", ".join(odd))
