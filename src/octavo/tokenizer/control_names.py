"""Names that model families gave to their control tokens, for files that type them as text.

Converters have typed such tokens normal or user-defined; then a message may spell them, and no
answer ends at them. The lists are those of llama.cpp, and turn-start names. Left out is what other
families use as words: `<s>` strikes text through in gemma.
"""

from __future__ import annotations

from collections.abc import Iterable

# They end a turn or a text.
_END_NAMES = """
    <|im_end|> <|eot_id|> <|eom_id|> <|eot|> <|eom|> <|end|> <|end_of_text|> <|endoftext|>
    <|end_of_turn|> <end_of_turn> <|END_OF_TURN_TOKEN|> <turn|> <|tool_response> <end_of_utterance>
    <|return|> <|call|> <|calls|> <|flush|> <EOT> _<EOT> \u2581<EOT> [EOT] [EOS] [e~[
    <\uff5cend\u2581of\u2581sentence\uff5c>
"""

_OTHER_NAMES = """
    <|im_start|> <|im_sep|> <|start_header_id|> <|end_header_id|> <|header_start|> <|header_end|>
    <|begin_of_text|> <|startoftext|> <start_of_turn> <|start_of_turn|> <|turn>
    <|start_of_role|> <|end_of_role|> <|system|> <|user|> <|assistant|> <|observation|>
    <|START_OF_TURN_TOKEN|> <|SYSTEM_TOKEN|> <|USER_TOKEN|> <|CHATBOT_TOKEN|>
    <|start|> <|channel|> <|message|> <|constrain|>
    [INST] [/INST] [SYSTEM_PROMPT] [/SYSTEM_PROMPT]
    <\uff5cUser\uff5c> <\uff5cAssistant\uff5c> <\uff5cbegin\u2581of\u2581sentence\uff5c>
    <|fim_prefix|> <fim-prefix> <fim_prefix> <PRE> \u2581<PRE> <|code_prefix|> <|prefix|>
    <|fim_suffix|> <fim-suffix> <fim_suffix> <SUF> \u2581<SUF> <|code_suffix|> <|suffix|>
    <|fim_middle|> <fim-middle> <fim_middle> <MID> \u2581<MID> <|code_middle|> <|middle|>
    <|fim_pad|> <fim-pad> <fim_pad> <PAD> [PAD] <|file_sep|>
    <|fim_repo|> <|repo_name|> <fim-repo> <REPO> <reponame>
    <\uff5cfim\u2581begin\uff5c> <\uff5cfim\u2581hole\uff5c> <\uff5cfim\u2581end\uff5c>
"""

_ENDS = frozenset(_END_NAMES.split())
_ENDS_IF_TYPED_CONTROL = frozenset(("</s>", "<eos>"))
CONTROL_NAMES = _ENDS.union(_OTHER_NAMES.split())


def has_channels(template: str) -> bool:
    """Whether a chat template writes messages in channels, as Harmony's do."""
    return "<|start|>" in template and "<|channel|>" in template


def ends(control_names: Iterable[str]) -> frozenset[str]:
    """Return which of a vocabulary's control tokens end an answer."""
    found = (_ENDS | _ENDS_IF_TYPED_CONTROL).intersection(control_names)
    return found - ends_of_parts(found)


def ends_of_parts(control_names: Iterable[str]) -> frozenset[str]:
    """Return which of a vocabulary's control tokens end a part of an answer, and not the answer."""
    found = frozenset(control_names)
    has_parts = {"<|return|>", "<|call|>"} <= found or {"<|calls|>", "<|flush|>"} <= found
    return found & {"<|end|>"} if has_parts else frozenset()
