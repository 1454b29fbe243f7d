"""Models with recurrent layers, none of which are run: a token rewrites their state, so there is
nothing of earlier tokens that pages could keep. Tables of names only."""

from __future__ import annotations

WHY = "it has recurrent layers, and Octavo keeps no recurrent state yet"

# Architectures of GGUF files.
ARCHITECTURES = frozenset(
    (
        "arwkv7", "falcon-h1", "granitehybrid", "jamba", "kimi-linear", "lfm2", "lfm2moe", "mamba",
        "mamba2", "nemotron_h", "nemotron_h_moe", "plamo2", "qwen35", "qwen35moe", "qwen3next",
        "rwkv6", "rwkv6qwen2", "rwkv7",
    )
)  # fmt: skip

# How classes of transformers begin. Granite 4 has one for dense models too: its layers tell.
CLASSES = (
    "Bamba", "FalconH1", "FalconMamba", "Jamba", "KimiLinear", "Lfm2", "Mamba", "NemotronH",
    "OlmoHybrid", "Plamo2", "Qwen3Next", "Qwen3_5", "RWKV", "RecurrentGemma", "Rwkv", "Zamba",
    "xLSTM",
)  # fmt: skip
