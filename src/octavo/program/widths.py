"""What the builder asserts of ops with many widths: norms, and those that rows meet experts by."""

from __future__ import annotations

from octavo.program.ops import Experts, Norm, Route


def check_route(op: Route) -> None:
    experts, groups, bias = op.experts, op.groups, op.choice_bias
    assert experts % groups == 0
    assert 0 < op.groups_used <= groups
    assert 0 < op.used <= op.groups_used * (experts // groups)
    assert bias is None or (bias.shape == (experts,) and (groups == 1 or experts // groups > 1))


def check_experts(op: Experts) -> None:
    gate, up, down = op.weights
    assert gate.shape == up.shape == (op.experts * down.shape[1], op.x.width)
    assert down.shape[0] == op.experts * op.out.width
    assert op.add is None or op.add.width == op.out.width
    for weight, bias in zip(op.weights, op.biases, strict=True):
        assert bias is None or bias.shape == weight.shape[:1]


def check_norm(op: Norm) -> None:
    assert op.x.width % op.heads == 0
    for vector in op.vectors:
        assert vector is None or vector.shape == (op.head_dim,), (
            f"{vector.name} {vector.shape} norms {op.heads} heads of rows of {op.x.width}"
        )
