"""What of each family runs fused; that it changes no bit test_directories says."""

from __future__ import annotations

from pathlib import Path

import pytest

from octavo.program.fuse import fuse
from octavo.weights.model_header import read_header
from tests.families.directories import VARIANTS, golden_of, write_directory

NORMS_WHOLE_ROWS = {"olmo2", "olmoe"}  # of q and k
# Queries scaled once turned; norms of V; norms of whole rows.
NO_QKV = {"deepseek2", "mistral3", "gemma4", *NORMS_WHOLE_ROWS}
NORMS_BEHIND = {"gemma2", "gemma3", "gemma4", "olmo2"}  # what they make is added to the residual


@pytest.mark.parametrize("variant", VARIANTS)
def test_projections_and_norms_fuse_whatever_the_family(variant: str, tmp_path: Path) -> None:
    """RMSNorm or LayerNorm, with RoPE or without."""
    golden = golden_of(variant)
    header = read_header(write_directory(tmp_path, variant, golden["shapes"], golden["seed"]))
    program, config = header.program(), header.config
    ops = fuse(program, dict.fromkeys(program.weights(), "abf16")).ops
    names = [type(op).__name__ for op in ops]
    apart = config.architecture in NO_QKV or config.qkv_limit > 0  # kept within it before stored
    assert names.count("QKV") == (0 if apart else config.num_layers)
    before = 0 if config.architecture == "olmo2" else 1 if config.parallel_norms == 1 else 2
    behind = 2 if config.architecture in NORMS_BEHIND else 0
    of_rows = 2 if config.architecture in NORMS_WHOLE_ROWS else 0
    if config.latent:  # a token's row is normed, and what a narrow q is
        before += config.latent.q_lora_rank > 0
        of_rows = 1
    # What experts read is packed for each expert by itself.
    mixed = sum(config.mixture.sparse) if config.mixture else 0
    found = (names.count("NormQuantize"), names.count("Norm"))
    layers = config.num_layers
    if config.norms_last:  # the last of them is what a matrix reads
        before, behind, found = 0, 2, (found[0] - 1, found[1] + 1)
    if config.architecture == "bloom":  # whose first norm makes what is added to
        found = found[0], found[1] - 1
    alone = (behind + of_rows) * layers + mixed
    if config.uneven:  # of q, of the k and v that are stored, and of what a layer is given
        alone += layers + 2 * (layers - config.uneven.sharing)
        alone += layers + 1 if config.uneven.layer_embedding else 0
    assert found == (before * layers - mixed, alone)
