"""Adding a model, as a contributor would: one short file that builds a program, and one line that
names it. A copy of the package gets both, and answers with a model of that architecture."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

import octavo
from octavo import LLM
from tests.cli.tiny_model import write_tiny_model
from tests.recipes.lines import Lines, python_in

# Attention and feed-forward read one norm and are added together, and nothing is rotated.
TOY = '''"""Toy: a layer's two halves side by side, on one norm; no rotary embedding."""

from octavo.model.config import ModelConfig
from octavo.program.builder import ProgramBuilder
from octavo.program.ops import KVSpec, Value, WeightSpec
from octavo.program.program import Program


def build(cfg: ModelConfig) -> Program:
    p = ProgramBuilder(rope_frequencies=cfg.rope_frequencies())
    group = p.kv_group(KVSpec(cfg.kv_heads, cfg.head_dim, cfg.head_dim))
    embedding = WeightSpec("token_embd.weight", (cfg.vocab_size, cfg.hidden_size))
    h = p.embed(embedding)
    for i in range(cfg.num_layers):

        def linear(x: Value, name: str, rows: int, add: Value | None = None) -> Value:
            return p.linear(x, WeightSpec(f"blk.{i}.{name}.weight", (rows, x.width)), add=add)

        x = p.rms_norm(h, WeightSpec(f"blk.{i}.attn_norm.weight", (h.width,)), cfg.norm_eps)
        q = linear(x, "attn_q", cfg.heads * cfg.head_dim)
        k, v = (linear(x, name, cfg.kv_heads * cfg.head_dim) for name in ("attn_k", "attn_v"))
        a = p.attention(q, k, v, heads=cfg.heads, group=group, scale=cfg.head_dim**-0.5)
        y = p.rms_norm(h, WeightSpec(f"blk.{i}.ffn_norm.weight", (h.width,)), cfg.norm_eps)
        g = p.gated(linear(y, "ffn_gate", cfg.ffn_size), linear(y, "ffn_up", cfg.ffn_size), "silu")
        h = linear(g, "ffn_down", cfg.hidden_size, add=linear(a, "attn_output", h.width, add=h))
    h = p.rms_norm(h, WeightSpec("output_norm.weight", (cfg.hidden_size,)), cfg.norm_eps)
    return p.logits(h, cfg.head_weight(embedding))
'''
USE = """
import sys
import numpy as np
from octavo import LLM, SamplingParams

llm = LLM(sys.argv[1], threads=1)
np.save(sys.argv[2], llm.logits(list(range(40))))
(answer,) = llm.generate([[1, 2, 3]], SamplingParams(max_tokens=5, temperature=0, ignore_eos=True))
print(len(answer.outputs[0].token_ids))
"""


def test_a_model_is_a_file_that_builds_a_program_and_a_line_that_names_it(tmp_path: Path) -> None:
    source = Path(octavo.__file__).parent
    package = tmp_path / "octavo"
    shutil.copytree(source, package, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    for core in source.glob("kernels/_native*.so"):
        (package / "kernels" / core.name).symlink_to(core.resolve())
    (package / "model/toy.py").write_text(TOY)
    Lines("model/registry.py", '"qwen2": llama.build', ', "toy": toy.build').add_to(package)
    Lines("model/registry.py", "from octavo.model import (\n", "    toy,\n").add_to(package)
    path = write_tiny_model(tmp_path / "toy.gguf", architecture="toy")
    found = tmp_path / "logits.npy"
    assert python_in(tmp_path, USE, str(path), str(found)) == "5\n"
    logits = np.load(found)
    assert logits.shape == (40, 258)
    assert np.isfinite(logits).all()
    same_weights = write_tiny_model(tmp_path / "llama.gguf")
    assert not np.array_equal(logits, LLM(same_weights, threads=1).logits(list(range(40))))
