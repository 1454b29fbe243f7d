"""Write tests/families/llama_cpp.json: what llama.cpp's converter makes of the tiny models.

    python -m tests.families.make_llama_cpp FOLDER

FOLDER has its convert_hf_to_gguf.py, conversion and gguf-py (those of llama-cpp-python 0.3.36's
source, when the file was made; of models with experts those of llama.cpp's build 11434). Of each
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

# What it converts of every family: no StarCoder with more than one KV head, and no Falcon with
# biases or whose MLP follows attention. It keeps no list of windowed layers of Gemma 3, and no
# windows of Qwen2, StarCoder2 and Mistral.
VARIANTS = (
    *("bloom", "falcon", "falcon-by-group", "gemma2", "gemma3-irregular", "gpt2", "granite"),
    *("granitemoe", "granitemoe-shared", "llama-biased", "llama-yarn", "ministral3"),
    *("mistral-windowed", "mixtral", "mixtral-all-used", "mpt", "mpt-clipped", "olmo2", "olmo3"),
    *("olmoe", "phi3", "phi3-partial", "qwen2-windows", "qwen3", "qwen3-silent-head", "qwen3moe"),
    *("smollm3-interval", "starcoder", "starcoder2", "starcoder2-no-bias"),
)


def main() -> None:
    folder = Path(sys.argv[1]).resolve()
    sys.path[:0] = [str(folder / "gguf-py"), str(folder)]
    for name in [name for name in sys.modules if name.partition(".")[0] == "gguf"]:
        del sys.modules[name]  # the converter has its own
    converter = importlib.import_module("conversion")
    found = {variant: converted(converter, variant) for variant in VARIANTS}
    lines = (f"{json.dumps(k)}: {json.dumps(v, separators=(',', ':'))}" for k, v in found.items())
    GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="ascii")


def converted(converter: Any, variant: str) -> dict[str, Any]:
    golden = golden_of(variant)
    with tempfile.TemporaryDirectory() as folder:
        path = write_directory(Path(folder), variant, golden["shapes"], golden["seed"])
        out = Path(folder) / "model.gguf"
        text = converter.ModelType.TEXT
        hparams = converter.ModelBase.load_hparams(path, False)
        if variant == "falcon":  # of which it takes a count that means nothing by its word
            del hparams["num_kv_heads"]
        if hparams["model_type"] == "mpt":  # which it knows by the name that came first
            hparams["architectures"] = ["MPTForCausalLM"]
        kind = converter.get_model_class(converter.get_model_architecture(hparams, text))
        kind.set_vocab = lambda self: None  # the tokens are only bytes
        f32 = importlib.import_module("gguf").LlamaFileType.ALL_F32
        kind(path, f32, out, hparams=hparams).write()
        return contents(out)


if __name__ == "__main__":
    main()
