"""Writes a GGUF model out as a directory in Hugging Face's layout, its weights rounded to bf16.

    python -m benchmarks.bf16_directory gemma3-270m DIR

Needs the model in the library, or its path; the writer is the tests'.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from octavo.environment import find_home
from octavo.weights import library
from octavo.weights.gguf_model import reference_weights
from octavo.weights.model_header import read_header
from tests.weights.hf.written import (
    bf16,
    config_json,
    their_name,
    their_values,
    write_json,
    write_tokenizer,
    write_weights,
)


def write(model: str, to: Path) -> None:
    header = read_header(library.find(model, home=find_home()))
    config = header.config
    to.mkdir(parents=True)
    write_json(to / "config.json", config_json(config))
    tensors = {
        their_name(name, config): bf16(their_values(name, values, config))
        for name, values in reference_weights(header, header.program().weights()).items()
    }
    write_weights(to, tensors, dtype="BF16")
    write_tokenizer(to, header.tokenizer_spec())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("to", type=Path)
    given = parser.parse_args()
    write(given.model, given.to)
