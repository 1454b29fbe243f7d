"""What a config.json says of Granite 4, whose class has dense models beside those that are not.

Knows which of them are run: all layers are attention, without experts. Some turn no layer.
"""

from __future__ import annotations

from octavo.errors import UnsupportedModelError
from octavo.weights.hf.json_fields import Fields
from octavo.weights.hf.windows import Layers

_POSITIONS = "position_embedding_type"

# Of state-space layers, of experts, and the size of theirs: of models that `check_dense` refuses.
IGNORED = (
    *("mamba_n_heads", "mamba_n_groups", "mamba_d_state", "mamba_d_head", "mamba_d_conv"),
    *("mamba_expand", "mamba_chunk_size", "mamba_conv_bias", "mamba_proj_bias"),
    *("time_step_limit", "num_experts_per_tok", "output_router_logits", "router_aux_loss_coef"),
    *("intermediate_size", "init_method"),
)


def check_dense(fields: Fields) -> None:
    """Raises UnsupportedModelError by the field that says otherwise; silence does."""
    if not fields.has("layer_types"):
        raise UnsupportedModelError(
            f"{fields.name_of('layer_types')} is missing, so all layers are Mamba's: Octavo "
            "keeps no recurrent state yet"
        )
    for kind in fields.texts("layer_types"):
        if kind in ("mamba", "linear_attention"):
            raise UnsupportedModelError(
                f'{fields.name_of("layer_types")} has "{kind}": Octavo keeps no recurrent state yet'
            )
    if experts := fields.whole("num_local_experts", least=0):
        raise UnsupportedModelError(
            f"{fields.name_of('num_local_experts')} is {experts}: of this class models "
            "without experts are run"
        )


def all_without_rope(fields: Fields, layers: int) -> Layers:
    """No layer has a rotary embedding, unless the config says that all have."""
    match fields.text(_POSITIONS, default="nope"):
        case "rope":
            return ()
        case "nope":
            return (True,) * layers
    raise fields.wrong(_POSITIONS, '"rope" or "nope"')
