"""A row-wise op in six files, an array of the batch in four, and a program that uses both."""

from __future__ import annotations

from tests.recipes.lines import Lines

# Clip: out = x, held between -limit and limit. The record's `scale` carries the limit.
ROW_OP = [
    # what it is
    Lines("src/octavo/program/ops.py", "@dataclass(frozen=True, slots=True)\nclass Head:",
          '@dataclass(frozen=True, slots=True)\nclass Clip:\n    """out = x between -limit and '
          'limit"""\n\n    x: Value\n    limit: float\n    out: Value\n\n\n', before=True),
    Lines("src/octavo/program/ops.py", "RowwiseOp = ", "Clip | "),
    # the word for it
    Lines("src/octavo/program/builder.py", "import (\n", "    Clip,\n"),
    Lines("src/octavo/program/builder.py", "    def logits(",
          "    def clip(self, x: Value, limit: float) -> Value:\n"
          "        out = self._value(x.width)\n"
          "        self._ops.append(Clip(x, limit, out))\n"
          "        return out\n\n", before=True),
    # what it computes, in numpy; what it costs; what a record of it holds
    Lines("src/octavo/program/row_ops.py", "octavo.program.ops import (\n", "    Clip,\n"),
    Lines("src/octavo/program/row_ops.py", "ROW_OPS: dict[type[Op], RowOp] = {\n",
          "    Clip: RowOp(\n"
          "        lambda op, args: np.clip(args.x, -np.float32(op.limit), np.float32(op.limit)),\n"
          "        lambda op, program: 2 * op.x.width,\n"
          "        None,\n"
          '        {"x": "x", "scale": "limit"},\n'
          "    ),\n"),
    # the kernel: where it is declared, and what it does on every level
    Lines("csrc/kernels/rows.h", "struct RowKernels {\n",
          "  void (*clip)(const float* x, float limit, int32_t n, float* out);\n"),
    Lines("csrc/kernels/rows.cpp", "static const RowKernels kRows = {\n",
          "static void clip(const float* x, float limit, int32_t n, float* out) {\n"
          "  const f32x16 high = set1_f(limit), low = set1_f(-limit);\n"
          "  for (int32_t k = 0; k < n; k += 16) {\n"
          "    const mask16 m = first_lanes(n - k);\n"
          "    store_f_mask(out + k, m, max(min(load_f_mask(x + k, m), high), low));\n"
          "  }\n"
          "}\n\n", before=True),
    Lines("csrc/kernels/rows.cpp", "static const RowKernels kRows = {\n", "    .clip = clip,\n"),
    # the op that calls it
    Lines("csrc/program/row_ops.h", "kRowOps[] = {\n",
          '    {.name = "Clip", .inputs = 1,\n'
          "     .run = [](const RowKernels& k, const RowArgs& a) "
          "{ k.clip(a.x, a.op.scale, a.width, a.out); }},\n"),
]  # fmt: skip

# gains: each row's embedding times its own number.
BATCH_ARRAY = [
    Lines("src/octavo/batch.py", "    top_k: int = 0",
          "    gains: FloatArray | None = None  # (rows,)\n", before=True),
    Lines("csrc/program/step.h", "  // results\n",
          "  const float* gains;  // (rows,) or null\n", before=True),
    Lines("csrc/program/step.h", '  s.top_k = arrays.number("top_k");\n',
          '  if (arrays.has("gains")) arrays.get("gains", s.gains, {{"", rows}});\n'),
    Lines("csrc/program/run_rows.cpp", "s_.tokens[row], rows_of(op.out, row));\n",
          "    if (s_.gains == nullptr) return;\n"
          "    float* x = rows_of(op.out, row);\n"
          "    p_.kernels_->rows->scale(x, s_.gains[row], parts_.buffers[op.out].width, x);\n"),
    Lines("src/octavo/program/reference.py", "sum(found[1:], start=found[0])\n",
          "                if batch.gains is not None:\n"
          "                    rows[op.out.id] = rows[op.out.id] * batch.gains[:, None]\n"),
]  # fmt: skip

USE = """
from dataclasses import replace

import numpy as np

from octavo.batch import Asked, Want, make_batch
from octavo.kernels import KV_FORMATS, available_isas, native
from octavo.program.builder import ProgramBuilder
from octavo.program.cost import Work, cost, uniform_weights
from octavo.program.kv_bytes import PageFormats
from octavo.program.ops import KVSpec, WeightSpec
from octavo.program.reference import ReferenceInterpreter
from octavo.weights.ggml_type import GGMLType
from tests.tiny import make_runner, random_model

assert "Clip" in native.OPS
p = ProgramBuilder(rope_frequencies=[0.5] * 8)
group = p.kv_group(KVSpec(1, 32, 32))
h = p.clip(p.embed(WeightSpec("table", (300, 64))), 0.05)
q, k, v = (p.linear(h, WeightSpec(name, (32, 64))) for name in "qkv")
a = p.attention(p.rope(q, heads=1, style="half"), p.rope(k, heads=1, style="half"), v,
                heads=1, group=group, scale=0.2)
program = p.logits(p.linear(a, WeightSpec("o", (64, 32)), add=h), WeightSpec("head", (300, 64)))
bytes_of, f32 = uniform_weights(program, 32), KV_FORMATS["f32"]
costs = cost(program, Work(rows=1), weight_bytes=bytes_of, formats=PageFormats.everywhere(f32))
assert (costs[1].op_class, costs[1].flops) == ("embed", 128)

pool = native.ThreadPool(1)
model = random_model(program, pool, type=GGMLType.F32)
tokens = list(range(40))
plain = make_batch([(tokens, 0)], [[list(range(64))]], range(40), [Asked(Want.LOGITS)] * 40)
batch = replace(plain, gains=np.linspace(0.1, 2, 40, dtype=np.float32))


def forward(batch, **options):
    return make_runner(model, pool, kv_dtype="f32", **options).run(batch).logits


want = ReferenceInterpreter(program, model.exact, num_blocks=64).run(batch).logits
got = forward(batch)
np.testing.assert_allclose(got, want, rtol=0, atol=1e-4 * np.abs(want).max())
assert np.array_equal(got, forward(batch, fuse=False))
assert np.abs(got - forward(plain)).max() > 1e-2 * np.abs(want).max()
try:
    forward(replace(plain, gains=np.ones(39, np.float32)))
except ValueError as error:
    assert str(error) == "gains: expected 40, got 39", error
else:
    raise AssertionError("39 gains of 40 rows were taken")
print("as the reference says, on", *available_isas())
"""
