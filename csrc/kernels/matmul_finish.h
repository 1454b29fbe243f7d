// matmul_finish.h: what one call of a matmul works on, and what becomes of a unit's sums.
#pragma once
#include "kernels/matmul_parts.h"

namespace octavo::OCTAVO_ISA {

struct Range {
  const Weight* w;
  const Acts* acts;
  Epilogue epilogue;
  float* out;
  int64_t out_stride;
  int32_t panel0;
  int64_t act_row;  // bytes
  int64_t length;   // as TileFn
};

__attribute__((noinline)) static void finish(const Range& range, const float* sums, int32_t panel,
                                             int unit, int32_t row, int tokens) {
  const Epilogue& e = range.epilogue;
  for (int r = 0; r < unit; ++r) {
    const int64_t n = (int64_t)(panel + r) * 16, column = n - (int64_t)range.panel0 * 16;
    const mask16 inside = first_lanes((int)(range.w->rows - n));
    const float* sum = sums + r * tokens * 16;
    float* out = range.out + row * range.out_stride + column;
    const float* add_to = e.add ? e.add + row * e.add_stride + column : nullptr;
    const f32x16 bias = e.bias ? load_f_mask(e.bias + n, inside) : zero_f();
    for (int m = 0; m < tokens; ++m, sum += 16, out += range.out_stride) {
      f32x16 v = load_f(sum);
      if (e.bias) v = add(v, bias);
      if (e.scale != 1.0f) v = mul(v, set1_f(e.scale));
      if (e.add) v = add(v, load_f_mask(add_to + m * e.add_stride, inside));
      store_f_mask(out, inside, v);
    }
  }
}

}  // namespace octavo::OCTAVO_ISA
