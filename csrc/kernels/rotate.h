// rotate.h: a head's K, or its q, times an orthonormal Hadamard matrix.
//
// Few channels of K are far larger than the rest, and one scale for all of them leaves few steps to
// the rest; rotated, a row's values are of one size. As q is rotated too, q.k stays what it was. A
// block is as many values as the largest power of two that divides the row: 96 are 3 of 32.
//
// (a, b) becomes (a + b, a - b), at distances 1, 2, 4 and 8, then all is scaled, then at 16 and on.
// A product with 1 or -1 is exact, so the bits are the same at every level, `base` among them.
#pragma once
#include "kernels/simd.h"

namespace octavo::OCTAVO_ISA {

// Lanes with bit K of their number take a - b, the others a + b.
template <int K> OCTAVO_INLINE f32x16 butterfly(f32x16 v) {
  alignas(64) static constexpr float kSigns[4][16] = {
      {1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1},
      {1, 1, -1, -1, 1, 1, -1, -1, 1, 1, -1, -1, 1, 1, -1, -1},
      {1, 1, 1, 1, -1, -1, -1, -1, 1, 1, 1, 1, -1, -1, -1, -1},
      {1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1, -1}};
  return fma(v, load_f(kSigns[__builtin_ctz(K)]), swap_lanes<K>(v));
}

// `dim` is a multiple of 16.
static void rotate(const float* x, int dim, float* out) {
  const int block = dim & -dim, power = __builtin_ctz((uint32_t)block);
  const float scale = (power % 2 == 0 ? 1.0f : 0.707106781f) / (float)(1 << power / 2);
  for (int d = 0; d < dim; d += 16) {
    const f32x16 v = butterfly<2>(butterfly<1>(load_f(x + d)));
    store_f(out + d, mul(butterfly<8>(butterfly<4>(v)), set1_f(scale)));
  }
  for (int half = 16; half < block; half *= 2)
    for (int pair = 0; pair < dim; pair += 2 * half)
      for (int d = pair; d < pair + half; d += 16) {
        const f32x16 a = load_f(out + d), b = load_f(out + d + half);
        store_f(out + d, add(a, b));
        store_f(out + d + half, sub(a, b));
      }
}

}  // namespace octavo::OCTAVO_ISA
