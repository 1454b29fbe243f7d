// matmul_bf16x2.cpp: packed integer weights x rows of nearly float32 accuracy, one panel x M tokens
// over all of K.
//
// Knows how a quant of b bits becomes an exact bf16: OR-ed into the mantissa of 2^b it is the
// number 2^b + q. What that adds, and the zero point, is taken off once a group through the sum of
// the row: with z the zero point,
//   d = sum (2^b + q) x        c = min - (2^b + z) scale        acc = fma(d, scale, acc), acc =
//   fma(c, sum x, acc)
// (eight bits leave no room in a mantissa: W8 and the tables become q itself, without 2^b).
// d has two chains, added at the end: the hi and the lo terms where there are bf16 dots, else k =
// 4j, 4j+1 and k = 4j+2, 4j+3. Their order is the same for every M, so bits do not depend on how
// the work was cut. d overflows from 2^115 on.
#include "kernels/matmul_formats.h"

namespace octavo::OCTAVO_ISA {

// Units of at most so many tokens take two groups at once: their own chains do not hide the latency
// of a dot. More would not fit the registers.
constexpr int kFewTokens = kBf16Dots ? 5 : kMaxTokens == kMaxTile ? 4 : 0;

enum Row { kSumRow = 32, kHalfSumRow = 33, kRows = 35 };

// One step's weights as bf16 in 32-bit lanes: even holds k = 4j, 4j+2 (the first in the low half),
// odd 4j+1, 4j+3.
struct Pairs {
  i32x16 even, odd;
};

template <int32_t kFormat>
struct Exact : Group<kFormat> {
  using G = Group<kFormat>;
  static constexpr int kBits = G::kBits;
  static constexpr int kUp = 7 - kBits;  // from a byte's low end to the top of the mantissa
  static constexpr int kZero = G::kZeroShift == 0 ? 0 : 1 << G::kZeroShift;
  static constexpr float kOffset = (float)(kBits == 8 ? kZero : (1 << kBits) + kZero);

  OCTAVO_MEMBER i32x16 in_mantissa(i32x16 v) {
    constexpr int kMask = ((1 << kBits) - 1) << kUp, kPower = (127 + kBits) << 7;
    return or_i(and_i(v, set1_i(kMask | kMask << 16)), set1_i(kPower | kPower << 16));
  }

  // Eight bits are too many for the mantissa; converted to float they fill its high half, exactly.
  OCTAVO_MEMBER i32x16 byte_pair(i32x16 first, i32x16 second) {
    return or_i(shift_right_u<16>(as_int(to_float(first))), as_int(to_float(second)));
  }

  OCTAVO_MEMBER Pairs pairs(const uint8_t* p, int g, int j) {
    if constexpr (kBits == 8) {
      const i32x16 w = G::step(p, g, j), byte = set1_i(0xff);
      return {byte_pair(and_i(w, byte), and_i(shift_right_u<16>(w), byte)),
              byte_pair(and_i(shift_right_u<8>(w), byte), shift_right_u<24>(w))};
    } else if constexpr (kBits == 4) {
      const i32x16 both = load_i(p + g * 256 + (j & 3) * 64);
      if (j < 4) return {in_mantissa(shift_left<3>(both)), in_mantissa(shift_right_u<5>(both))};
      return {in_mantissa(shift_right_u<1>(both)), in_mantissa(shift_right_u<9>(both))};
    } else {
      const i32x16 w = G::step(p, g, j);
      return {in_mantissa(shift_left<kUp>(w)), in_mantissa(shift_right_u<8 - kUp>(w))};
    }
  }
};

// Two rows of the step for each chain: `a` is at row 4j.
template <int M>
OCTAVO_INLINE void add_pairs_of(i32x16 w, const int32_t* a, int64_t stride, f32x16 (&d)[2][M]) {
  if constexpr (kBf16Dots) {
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      d[0][m] = dot_bf16(d[0][m], w, set1_i(a[m]));
      d[1][m] = dot_bf16(d[1][m], w, set1_i(a[2 * stride + m]));
    }
  } else {
    const f32x16 first = as_float(shift_left<16>(w)),
                 second = as_float(and_i(w, set1_i((int32_t)0xffff0000u)));
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      d[0][m] = fma(first, as_float(set1_i(a[m])), d[0][m]);
      d[1][m] = fma(second, as_float(set1_i(a[2 * stride + m])), d[1][m]);
    }
  }
}

template <int M, class E>
OCTAVO_INLINE void add_step(const uint8_t* p, int g, int j, const int32_t* a, int64_t stride,
                            f32x16 (&d)[2][M]) {
  const Pairs w = E::pairs(p, g, j);
  add_pairs_of<M>(w.even, a + 4 * j * stride, stride, d);
  add_pairs_of<M>(w.odd, a + (4 * j + 1) * stride, stride, d);
}

template <int M>
OCTAVO_INLINE void clear(f32x16 (&d)[2][M]) {
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m) d[0][m] = d[1][m] = zero_f();
}

// c: what every value of the group has besides scale * (2^b + q). sum: the row of the sum that
// belongs to d.
template <int M>
OCTAVO_INLINE void finish(const f32x16 (&d)[2][M], f32x16 scale, f32x16 c, const int32_t* sum,
                          f32x16 (&acc)[M]) {
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m) {
    acc[m] = fma(add(d[0][m], d[1][m]), scale, acc[m]);
    acc[m] = fma(c, as_float(set1_i(sum[m])), acc[m]);
  }
}

// kGroups groups at once, so that few tokens have enough chains; their sums are taken in order, as
// if one by one. A step and the one four later share their bytes, so they follow each other. The
// loop stays one: M * 16 chain links a round hide it, and it compiles in a quarter of the time.
template <int M, class E, int kGroups>
OCTAVO_INLINE void add_groups(const uint8_t* p, int g, const int32_t* a, int64_t stride,
                              f32x16 (&acc)[M]) {
  f32x16 d[kGroups][2][M];
#pragma GCC unroll 4
  for (int i = 0; i < kGroups; ++i) clear<M>(d[i]);
#pragma GCC unroll 1
  for (int j = 0; j < 4; ++j) {
#pragma GCC unroll 4
    for (int i = 0; i < kGroups; ++i)
      add_step<M, E>(p, g + i, j, a + i * kRows * stride, stride, d[i]);
#pragma GCC unroll 4
    for (int i = 0; i < kGroups; ++i)
      add_step<M, E>(p, g + i, j + 4, a + i * kRows * stride, stride, d[i]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < kGroups; ++i) {
    const f32x16 scale = E::scale(p, g + i);
    f32x16 c = mul(set1_f(-E::kOffset), scale);  // exact
    if constexpr (E::kMin) c = add(c, E::min(p, g + i));
    finish<M>(d[i], scale, c, a + (i * kRows + kSumRow) * stride, acc);
  }
}

// A scale for every 16 k: steps 0..3, then steps 4..7. Unrolled, because bits apart from the
// nibbles need constant shifts.
template <int M, class E, int kHalf>
OCTAVO_INLINE void add_half(const uint8_t* p, int g, const int32_t* a, int64_t stride,
                            f32x16 (&acc)[M]) {
  f32x16 d[2][M];
  clear<M>(d);
#pragma GCC unroll 4
  for (int j = 4 * kHalf; j < 4 * kHalf + 4; ++j) add_step<M, E>(p, g, j, a, stride, d);
  const f32x16 scale = E::half_scale(p, 2 * g + kHalf);
  f32x16 c = mul(set1_f(-E::kOffset), scale);
  if constexpr (E::kMin) c = sub(c, E::half_less(p, 2 * g + kHalf));
  finish<M>(d, scale, c, a + (kHalfSumRow + kHalf) * stride, acc);
}

template <int32_t kFormat, int M>
__attribute__((noinline)) static void tile(const uint8_t* p, int64_t panel_stride, int64_t groups,
                                           const int32_t* a, int64_t stride, Ahead ahead,
                                           float* sums) {
  using E = Exact<kFormat>;
  if (kMaxTokens == kMaxTile) stride = M;  // a unit takes whole tiles: offsets become constants
  f32x16 acc[M];
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m) acc[m] = zero_f();
  constexpr int kTogether = E::kHalves || M > kFewTokens ? 1 : 2;
  for (int64_t first = 0; first < groups; first += E::kLayout.groups, p += E::kLayout.bytes) {
    const int count =
        groups - first < E::kLayout.groups ? (int)(groups - first) : E::kLayout.groups;
    int g = 0;
    if constexpr (kTogether > 1) {
#pragma GCC unroll 1
      for (; g + kTogether <= count; g += kTogether, a += kTogether * kRows * stride) {
#pragma GCC unroll 4
        for (int i = 0; i < kTogether; ++i) prefetch_group<E>(p, panel_stride, ahead, g + i);
        add_groups<M, E, kTogether>(p, g, a, stride, acc);
      }
    }
#pragma GCC unroll 1
    for (; g < count; ++g, a += kRows * stride) {
      prefetch_group<E>(p, panel_stride, ahead, g);
      if constexpr (E::kHalves) {
        add_half<M, E, 0>(p, g, a, stride, acc);
        add_half<M, E, 1>(p, g, a, stride, acc);
      } else {
        add_groups<M, E, 1>(p, g, a, stride, acc);
      }
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m) store_f(sums + m * 16, acc[m]);
}

template <int32_t kFormat>
static TileFn pick_tokens(int tokens) {
  if constexpr (kMaxTokens >= 6) {
    if (tokens == 6) return tile<kFormat, 6>;
    if (tokens == 5) return tile<kFormat, 5>;
    if (tokens == 4) return tile<kFormat, 4>;
  }
  if (tokens == 3) return tile<kFormat, 3>;
  if (tokens == 2) return tile<kFormat, 2>;
  return tile<kFormat, 1>;
}

TileFn bf16x2_tile(int32_t format, int tokens) {
  switch (format) {
    case W8: return pick_tokens<W8>(tokens);
    case W4S: return pick_tokens<W4S>(tokens);
    case W4A: return pick_tokens<W4A>(tokens);
    case W5S: return pick_tokens<W5S>(tokens);
    case W5A: return pick_tokens<W5A>(tokens);
    case W4K: return pick_tokens<W4K>(tokens);
    case W5K: return pick_tokens<W5K>(tokens);
    case W6K: return pick_tokens<W6K>(tokens);
    case W2K: return pick_tokens<W2K>(tokens);
    case W3K: return pick_tokens<W3K>(tokens);
    case W4T: return pick_tokens<W4T>(tokens);
    case W4TK: return pick_tokens<W4TK>(tokens);
    default: return pick_tokens<W4F>(tokens);
  }
}

}  // namespace octavo::OCTAVO_ISA
