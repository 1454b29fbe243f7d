"""Writes GGUF files of random weights in the shapes of models that no package ships.

    python -m benchmarks.synthetic_gguf llama-3.2-1b Q4_0 DIR [--seed 0]

For measuring speed at those sizes: what such a model says means nothing. A file is the same for the
same seed; it is there when it is whole, and one that is there is left as it is. It has a tokenizer,
and llama.cpp reads it too.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from pathlib import Path

from benchmarks.gguf_writer import file_size, write
from benchmarks.synthetic_model import FORMATS, SHAPES, metadata, tensors
from octavo.planning.available_memory import available_memory

_KEPT_FREE = 2**30  # of the disk


def file_name(shape: str, format: str, seed: int) -> str:
    return f"random-{shape}-{format}" + (f"-seed{seed}" if seed else "") + ".gguf"


def write_model(shape: str, format: str, folder: Path, *, seed: int = 0) -> Path:
    """The file's path; it is written if there is none of its size. ValueError: no room for it."""
    path = folder / file_name(shape, format, seed)
    facts = metadata(shape, SHAPES[shape], format)
    parts = list(tensors(SHAPES[shape], format, seed))
    size = file_size(facts, parts)
    if path.is_file() and path.stat().st_size == size:
        print(f"{path} is there: {size / 1e9:.2f} GB")
        return path
    folder.mkdir(parents=True, exist_ok=True)
    room = shutil.disk_usage(folder).free
    if room < size + _KEPT_FREE:
        raise ValueError(
            f"{path} takes {size / 1e9:.2f} GB, and 1 GB is kept free: {folder} has "
            f"{room / 1e9:.2f} GB; expected another folder, or a smaller shape or format"
        )
    memory = available_memory()
    print(f"{path}: {size / 1e9:.2f} GB of {room / 1e9:.0f} GB free on its disk", flush=True)
    if memory < size * 1.2:
        print(f"note: {memory / 1e9:.1f} GB of memory are free: too few to run this file well")
    began = time.perf_counter()
    write(path, facts, parts)
    print(f"written in {time.perf_counter() - began:.0f} s")
    return path


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.synthetic_gguf", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("format", choices=FORMATS, type=str.upper)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    try:
        write_model(given.shape, given.format, given.folder, seed=given.seed)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
