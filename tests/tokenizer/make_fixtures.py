"""Makes the small fixtures of these tests: two tiny vocabularies and golden ids.

    python -m tests.tokenizer.make_fixtures                  # tiny vocabularies, their golden ids
    python -m tests.tokenizer.make_fixtures --smollm2 FILE   # golden ids of SmolLM2's vocabulary

Golden ids come from implementations independent of the one under test: `slow_bpe.py` (pure Python,
no `tokenizers`) for byte-level BPE, Google's sentencepiece for SPM. Training is not part of what is
tested, so the tiny vocabularies are trained with whatever does it: `tokenizers` and sentencepiece.
"""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path

import sentencepiece
import tokenizers
from sentencepiece import SentencePieceProcessor
from tokenizers import decoders, models, pre_tokenizers, trainers

from octavo.tokenizer import TokenizerSpec
from octavo.weights.model_header import read_header
from tests.tokenizer import slow_bpe
from tests.tokenizer.fixture_specs import FIXTURES, load_spec, load_texts
from tests.tokenizer.sentencepiece_oracle import processor

CORPUS = """\
A small press prints one sheet and folds it three times: eight leaves, sixteen pages, one octavo.
The printer keeps the pages that are asked for again and again within reach of the hand.
There isn't a reader who hasn't turned back a page; we'll keep them, and I'd say they're worth it.
In 1455 a page had 42 lines; in 2026 a block has 32 tokens and a pool 1,024 blocks.
def fold(sheet, times=3):
    if times == 0:
        return [sheet]
    return [page for half in sheet.halves() for page in fold(half, times - 1)]
小さな印刷所で、猫が一枚の紙を三回折りました。紙は八枚の本になりました。
猫はその本を毎日読みます。昨日の頁は今日も同じ頁です。名前はまだありません。
「同じ言葉は同じ頁に。」と猫は言いました。そして、また紙を折りました。
Der Drucker faltet den Bogen; l'imprimeur plie la feuille; печатник складывает лист.
banana ananas aaaa bbbb hahaha hehehe ---- ==== .... !!!! ???? ,,,, 0000 1111 00110011
""".splitlines()

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|turn|>' + message['role'] + '\\n' + message['content'] | trim + '<|end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|turn|>assistant\\n' }}{% endif %}"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smollm2", type=Path, help="make the golden ids of this GGUF file only")
    args = parser.parse_args()
    if args.smollm2:
        _write_golden("smollm2", _bpe_ids(read_header(args.smollm2).tokenizer_spec(), "smollm"))
        return
    _write("tiny_bpe", _train_bpe())
    _write("tiny_spm", _train_spm())
    for pre in slow_bpe.FAMILIES:
        _write_golden(f"tiny_bpe_{pre}", _bpe_ids(load_spec("tiny_bpe", pre=pre), pre))
    for name, prefix in (("tiny_spm", False), ("tiny_spm_prefix", True)):
        oracle = processor(load_spec("tiny_spm", add_space_prefix=prefix))
        _write_golden(name, [oracle.encode(text) for text in load_texts()])


def _bpe_ids(spec: TokenizerSpec, pre: str) -> list[list[int]]:
    return [slow_bpe.encode(text, spec, pre) for text in load_texts()]


def _train_bpe() -> dict[str, object]:
    """Three control tokens; <tool> and a run of four blanks are user-defined."""
    trained = tokenizers.Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=603,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|bos|>", "<|turn|>", "<|end|>"],
        show_progress=False,
    )
    trained.train_from_iterator(CORPUS * 2, trainer)
    model = json.loads(trained.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    types = [3, 3, 3] + [1] * (len(tokens) - 3) + [4, 4]
    return {
        "kind": "bpe",
        "pre": "gpt-2",
        "tokens": [*tokens, "<tool>", "    "],
        "token_types": types,
        "merges": [" ".join(pair) for pair in model["merges"]],
        "bos_id": 0,
        "eos_id": 2,
        "add_bos": True,
        "chat_template": CHAT_TEMPLATE,
    }


def _train_spm() -> dict[str, object]:
    """Byte fallback; runs of newlines and of blanks are user-defined, as gemma's are."""
    blank = "\u2581"
    runs = ["\n", "\n\n", "\n\n\n", blank * 2, blank * 3, blank * 4, "<tool>"]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS * 2),
        model_writer=model,
        model_type="bpe",
        vocab_size=700,
        byte_fallback=True,
        character_coverage=0.99,
        control_symbols=["<|turn|>", "<|end|>"],
        user_defined_symbols=runs,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    trained = SentencePieceProcessor(model_proto=model.getvalue())
    ids = range(trained.vocab_size())
    types = [_spm_type(trained, i, runs) for i in ids]
    tokens = [trained.id_to_piece(i) for i in ids]
    return {
        "kind": "spm",
        "pre": "default",
        "tokens": [
            text.replace(blank, " ") if kind == 4 else text
            for text, kind in zip(tokens, types, strict=True)
        ],
        "token_types": types,
        "scores": [trained.get_score(i) for i in ids],
        "bos_id": trained.bos_id(),
        "eos_id": trained.eos_id(),
        "unk_id": trained.unk_id(),
        "add_bos": True,
        "chat_template": CHAT_TEMPLATE,
    }


def _spm_type(trained: SentencePieceProcessor, index: int, user_defined: list[str]) -> int:
    if trained.is_unknown(index):
        return 2
    if trained.is_control(index):
        return 3
    if trained.is_byte(index):
        return 6
    return 4 if trained.id_to_piece(index) in user_defined else 1


def _write_golden(name: str, ids: list[list[int]]) -> None:
    _write(f"golden_{name}", {"texts": load_texts(), "ids": ids})


def _write(name: str, value: dict[str, object]) -> None:
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    (FIXTURES / f"{name}.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
