"""Sliding: a program whose sequences have no end, for its full layers see a bounded context.

Comes in: a Program, the tokens of the context and how many of them are a sequence's first ones.
Goes out: the same with windows in place of full attention. A row sees the beginning and the last
tokens, as if what was between them had never been   (StreamingLLM, Xiao et al. 2023): queries that
are far from the beginning meet it turned as the context's last position is. Up to the context's end
a row sees what it would anyway, by the same arithmetic. Knows nothing of pages or options.
"""

from __future__ import annotations

from dataclasses import replace

from octavo.program.ops import Attend, Clamp, Embed, Join, Norm, Rope, Scale, ScaleByPosition, Value
from octavo.program.program import Op, Program, output


def why_not_sliding(program: Program) -> str | None:
    """Say what keeps a program's context from sliding."""
    if any(isinstance(op, Embed) and op.positions is not None for op in program.ops):
        return "its positions are learned, and end with the context that it was trained for"
    if any(isinstance(op, ScaleByPosition) for op in program.ops):
        return "it scales queries by how far on they are in all"
    if any(isinstance(op, Attend) and op.slopes is not None for op in program.ops):
        return "its scores fall by distance (ALiBi), so that it lets go of what is far by itself"
    if not program.full_groups:
        return "all of its layers have a window of their own, and keep it"
    return None


def slide(program: Program, context: int, sinks: int) -> Program:
    """The program with a context of so many tokens, of which the first `sinks` stay."""
    assert 0 <= sinks < context
    assert why_not_sliding(program) is None
    full = program.full_groups
    groups = tuple(
        replace(spec, window=context - sinks, beginning=sinks, slides=True)
        if group in full
        else spec
        for group, spec in enumerate(program.groups)
    )
    slid = replace(program, groups=groups)
    return _with_far_queries(slid, full, context - 1) if sinks else slid


def _with_far_queries(program: Program, full: list[int], last: int) -> Program:
    """The program where attention of these groups meets the beginning with queries of their own,
    turned as far as `last` at most."""
    writers = {out.id: op for op in program.ops if (out := output(op)) is not None}
    next_id, ops, tables = max(writers) + 1, list[Op](), dict(program.rope_tables)

    def far(q: Value) -> Value:
        """Write what `q` is with other turns, from where it was turned on; q if it never was."""
        nonlocal next_id
        op = writers[q.id]
        if isinstance(op, Rope):
            name = f"{op.rope_table}, at most {last}"
            tables[name] = replace(program.rope_tables[op.rope_table], last=last)
            op = replace(op, rope_table=name)
        elif isinstance(op, Norm | Scale | Clamp) and (x := far(op.x)) != op.x:
            op = replace(op, x=x)
        elif isinstance(op, Join) and (y := far(op.y)) != op.y:  # latent attention turns that part
            op = replace(op, y=y)
        else:
            return q
        out, next_id = Value(next_id, q.width), next_id + 1
        ops.append(replace(op, out=out))
        return out

    for op in program.ops:
        if isinstance(op, Attend) and op.group in full:
            op = replace(op, far_q=far(op.q))
        ops.append(op)
    return replace(program, ops=tuple(ops), rope_tables=tables)
