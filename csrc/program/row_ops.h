// row_ops.h: the ops that make each row from the same row of their inputs alone, one line of a
// table each: how many inputs, what else is read, the kernel. run_rows.cpp runs them, checks.cpp
// checks their records by it.
//
// The inputs and the result have one width, and the result may lie where an input lies: a row's
// kernel reads each value before it writes it. octavo.program.row_ops is the same table for numpy
// and for costs.
#pragma once
#include <cstring>

#include "kernels/log.h"
#include "kernels/rows.h"
#include "program/ops.h"

namespace octavo {

struct RowArgs {
  const OpRecord& op;
  int32_t width;
  const float *x, *y;          // y: null if there is one input
  const float *weight, *bias;  // of a norm, or a factor alone; null if there is none
  const float *cos, *sin;      // of the row's position, (half,) each
  int32_t half;
  int32_t position;  // of the row
  float* out;
};

struct RowOp {
  const char* name;
  int32_t inputs;           // 1: x, 2: x and y
  bool heads = false;       // a row is `heads` heads of `head_dim` values
  bool norm = false;        // of its norm_kind; its vectors have a value for each column of a head
  bool factor = false;      // its vector, if it has one, is a factor
  bool rope = false;        // reads its rope table
  int32_t activations = 0;  // kinds that it knows, the first ones
  bool position = false;    // reads its row's position, in steps of `original`
  void (*run)(const RowKernels& kernels, const RowArgs& args);
};

inline constexpr RowOp kRowOps[] = {
    {.name = "Norm",
     .inputs = 1,
     .heads = true,
     .norm = true,
     .run =
         [](const RowKernels& k, const RowArgs& a) {
  for (int64_t at = 0; at < a.width; at += a.op.head_dim)
    k.norm(a.op.norm_kind, a.x + at, a.weight, a.bias, a.op.eps, a.op.head_dim, a.out + at);
}},
    {.name = "Rope",
     .inputs = 1,
     .heads = true,
     .rope = true,
     .run =
         [](const RowKernels& k, const RowArgs& a) {
  if (a.out != a.x) std::memcpy(a.out, a.x, (size_t)a.width * 4);
  k.rope(a.out, a.op.heads, a.op.head_dim, 2 * a.half, a.cos, a.sin, a.op.rope_style);
}},
    {.name = "Activate",
     .inputs = 1,
     .activations = kNumUngated,
     .run = [](const RowKernels& k,
               const RowArgs& a) { k.activate(a.x, a.op.activation, a.width, a.out); }},
    {.name = "GatedActivation",
     .inputs = 2,
     .activations = kNumActivations,
     .run = [](const RowKernels& k,
               const RowArgs& a) { k.gate_mul(a.x, a.y, a.op.activation, a.width, a.out); }},
    {.name = "Add",
     .inputs = 2,
     .run = [](const RowKernels& k, const RowArgs& a) { k.add(a.x, a.y, a.width, a.out); }},
    {.name = "Scale",
     .inputs = 1,
     .factor = true,
     .run =
         [](const RowKernels& k, const RowArgs& a) {
  k.scale(a.x, a.weight ? a.op.scale * *a.weight : a.op.scale, a.width, a.out);
}},
    {.name = "Clamp",
     .inputs = 1,
     .run = [](const RowKernels& k,
               const RowArgs& a) { k.clamp(a.x, a.op.scale, a.width, a.out); }},
    {.name = "ScaleByPosition",
     .inputs = 1,
     .position = true,
     .run =
         [](const RowKernels& k, const RowArgs& a) {
  const double steps = a.position / a.op.original;
  k.scale(a.x, (float)(1.0 + (double)a.op.scale * natural_log(1.0 + steps)), a.width, a.out);
}},
};
constexpr int32_t kNumOps = kFirstRowOp + (int32_t)std::size(kRowOps);

// nullptr if the op has a code of its own.
inline const RowOp* row_op_of(int32_t code) {
  return code >= kFirstRowOp && code < kNumOps ? &kRowOps[code - kFirstRowOp] : nullptr;
}

}  // namespace octavo
