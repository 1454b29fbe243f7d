"""What a config.json says of experts: how many, how many a row uses, which layers have them.

Comes in: fields, and what the family calls them. Goes out: a `Mixture`, and why it is not run, if
it is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from octavo.errors import ModelFormatError
from octavo.model.mixture import EXPERT_STEP, MOST_EXPERTS, Mixture
from octavo.program.ops import GateKind, RouteScore
from octavo.values import is_whole
from octavo.weights.hf.json_fields import Fields, shown_json

USED = "num_experts_per_tok"
# Of training, and of what transformers returns.
IGNORED = ("router_aux_loss_coef", "router_jitter_noise", "output_router_logits")


@dataclass(frozen=True, slots=True)
class ExpertFields:
    """What a family calls its numbers, and how it weighs a row's experts."""

    counts: tuple[str, ...] = ("num_local_experts",)  # any of them says how many there are
    ffn_size: str = "intermediate_size"
    score: RouteScore = "softmax"
    renormalised: str = ""  # the flag that says so; "": they are not
    shared_ffn_size: str = ""  # of the MLP beside them; "": there is none
    shared_count: str = ""  # instead, of experts that all rows meet, each of `ffn_size`
    has_dense_layers: bool = False  # fields say which layers have one MLP
    dense_first: str = ""  # or how many do, the first ones
    scale: str = ""  # what factors are multiplied by
    method: str = ""  # which says whether experts lie in groups, of which some are chosen first
    activation: GateKind = "silu"
    constants: Mapping[str, float] = field(default_factory=dict)  # of it: what fields must say
    words: Mapping[str, object] = field(default_factory=dict)  # what other fields must say
    biased: bool = False


def mixture(
    fields: Fields, said: ExpertFields | None, *, layers: int, hidden: int
) -> tuple[Mixture | None, str]:
    """Return the experts, and why the model is not run; None and nothing where there are none."""
    if said is None:
        return None, ""
    name = _count_field(fields, said.counts)
    experts = fields.whole(name)
    if not 1 <= experts <= MOST_EXPERTS:
        raise fields.wrong(name, f"a whole number from 1 to {MOST_EXPERTS}")
    used = fields.whole(USED)
    if not 1 <= used <= experts:
        raise fields.wrong(USED, f"a whole number from 1 to {name}, {experts}")
    sizes = {said.ffn_size: fields.whole(said.ffn_size, least=1), "hidden_size": hidden}
    why = next(
        (
            f"{fields.said(each)}: experts are run whose sizes are multiples of {EXPERT_STEP}"
            for each, size in sizes.items()
            if size % EXPERT_STEP
        ),
        "",
    )
    for constant, value in said.constants.items():
        if fields.real(constant) != value:
            why = why or f"{fields.said(constant)}: {value:g} is supported"
    for name, word in said.words.items():
        if fields.get(name) not in (None, word):
            why = why or f"{fields.said(name)}: only {shown_json(word)} is supported"
    ffn_size = sizes[said.ffn_size]
    return Mixture(
        experts,
        used,
        ffn_size,
        _sparse(fields, said, layers),
        score=said.score,
        renormalised=fields.flag(said.renormalised) if said.renormalised else False,
        shared_ffn_size=_shared(fields, said, ffn_size),
        activation=said.activation,
        biased=said.biased,
        scale=fields.real(said.scale) if said.scale else 1.0,
        **_groups(fields, said),
    ), why


def _shared(fields: Fields, said: ExpertFields, ffn_size: int) -> int:
    if said.shared_count:
        return ffn_size * fields.whole(said.shared_count, least=0)
    return fields.whole(said.shared_ffn_size, least=0) if said.shared_ffn_size else 0


def _groups(fields: Fields, said: ExpertFields) -> dict[str, int]:
    """DeepSeek-V2's: a group is as good as its best expert."""
    if not said.method:
        return {}
    fields.read.update(("n_group", "topk_group"))
    match fields.text(said.method):
        case "greedy":
            return {}
        case "group_limited_greedy":
            names = {"groups": "n_group", "groups_used": "topk_group"}
            return {ours: fields.whole(name, least=1) for ours, name in names.items()}
    raise fields.wrong(said.method, '"greedy" or "group_limited_greedy"')


def _count_field(fields: Fields, names: tuple[str, ...]) -> str:
    there = [name for name in names if fields.has(name)]
    first, *others = there or names
    for other in others if there else ():
        if fields.get(other) != fields.get(first):
            raise ModelFormatError(f"{fields.said(first)}, {fields.said(other)}: one is wrong")
    return first


def _sparse(fields: Fields, said: ExpertFields, layers: int) -> tuple[bool, ...]:
    """All, or those behind the first; or every nth layer, but for those that are listed."""
    if not said.has_dense_layers:
        first = fields.whole(said.dense_first, least=0) if said.dense_first else 0
        return tuple(i >= first for i in range(layers))
    step, listed = fields.whole("decoder_sparse_step", least=1), fields.get("mlp_only_layers") or []
    if not isinstance(listed, list) or not all(is_whole(i) and 0 <= i < layers for i in listed):
        raise fields.wrong("mlp_only_layers", f"a list of layers below {layers}")
    return tuple(i not in listed and (i + 1) % step == 0 for i in range(layers))
