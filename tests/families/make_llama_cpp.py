"""Write tests/families/llama_cpp.json: what llama.cpp's converter makes of the tiny models.

    python -m tests.families.make_llama_cpp FOLDER

FOLDER has its convert_hf_to_gguf.py and gguf-py (ik_llama.cpp's, when the file was made). Of each
variant's file the keys, and the tensors' names, shapes and checksums, so that those that our tests
write are not only ours. Needs torch and transformers.
"""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.families.directories import golden_of, write_directory
from tests.families.llama_cpp import GOLDEN, contents
from tests.weights.hf.written import changed

# What it converts: no StarCoder with more than one KV head, no Falcon with biases, and no Phi-3 of
# whose heads only a part turns.
VARIANTS = (
    *("falcon", "falcon-by-group", "gemma2", "gpt2", "phi3", "qwen2-windows", "qwen3"),
    *("starcoder", "starcoder2", "starcoder2-no-bias"),
)


def main() -> None:
    folder = Path(sys.argv[1]).resolve()
    sys.path[:0] = [str(folder / "gguf-py"), str(folder)]
    for name in [name for name in sys.modules if name.partition(".")[0] == "gguf"]:
        del sys.modules[name]  # the converter has its own
    converter = importlib.import_module("convert_hf_to_gguf")
    found = {variant: converted(converter, variant) for variant in VARIANTS}
    lines = (f"{json.dumps(k)}: {json.dumps(v, separators=(',', ':'))}" for k, v in found.items())
    GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="ascii")


def converted(converter: Any, variant: str) -> dict[str, Any]:
    golden = golden_of(variant)
    with tempfile.TemporaryDirectory() as folder:
        path = write_directory(Path(folder), variant, golden["shapes"], golden["seed"])
        if variant == "falcon":  # it takes one that means nothing there by its word
            changed(path, "config.json", num_kv_heads=...)
        out = Path(folder) / "model.gguf"
        name = converter.Model.load_hparams(path)["architectures"][0]
        kind = converter.Model.from_model_architecture(name)
        kind.set_vocab = lambda self: None  # the tokens are only bytes
        model = kind(path, converter.gguf.LlamaFileType.ALL_F32, out)
        model.write()
        return contents(out)


if __name__ == "__main__":
    main()
