// matmul_quantize_tile.cpp: all rows of a tile into int8 groups side by side (A32 of formats.h):
// the bytes of matmul_int8_rows.h, a third of its time.
//
// Knows one group of 32 columns of two to six rows at a time. What is one number of a row there
// (its largest value, its sums) is a lane here, and steps are written as whole vectors. A row's
// bytes do not depend on its neighbours: no lane meets another row's.
#include "kernels/matmul_int8_rows.h"

#if OCTAVO_PACKS_TILES

namespace octavo::OCTAVO_ISA {

// A vector of a pair of rows (a, b) has in each quarter of four lanes two of a, then two of b.
// Three pairs are folded over their quarters into one vector, a quarter a pair: row m's lanes are
// 2m and 2m + 1 of it.
constexpr int kPairs = kMaxTile / 2;

template <class Join> OCTAVO_INLINE i32x16 fold_quarters(const i32x16 (&pairs)[kPairs], Join join) {
  const auto fold = [&](i32x16 a, i32x16 b) {
    return join(_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd));
  };
  return fold(fold(pairs[0], pairs[1]), fold(pairs[2], pairs[2]));
}
OCTAVO_INLINE i32x16 swap_neighbours(i32x16 v) { return _mm512_shuffle_epi32(v, _MM_PERM_CDAB); }

// Where a group's values come from. Bytes of step j of row m lie in pair m / 2; scale and start,
// low and am in the even and the odd lanes of one vector.
template <int M> struct Order {
  static constexpr int kQuants = 8 * M, kScalars = 4 * M;
  int32_t quants[3][16] = {}, scalars[2][16] = {};
  uint16_t third[3] = {};  // lanes from the third pair
  constexpr Order() {
    for (int i = 0; i < kQuants; ++i) {
      const int j = i / M, m = i % M;
      quants[i / 16][i % 16] = 16 * (m / 2 % 2) + 4 * (j % 4) + 2 * (m % 2) + j / 4;
      if (m / 2 == 2) third[i / 16] |= (uint16_t)(1 << i % 16);
    }
    for (int i = 0; i < kScalars; ++i) {
      const int which = i / M, m = i % M;
      scalars[i / 16][i % 16] = 16 * (which / 2) + 2 * m + which % 2;
    }
  }
};
template <int M> static constexpr Order<M> kOrder{};

// The first `count` of these lanes from a multiple of 16 on; counts are multiples of 4.
template <int kCount> OCTAVO_INLINE void store_lanes(int32_t* out, i32x16 v) {
  if constexpr (kCount >= 16) store_i(out, v);
  else if constexpr (kCount == 8) _mm256_storeu_si256((__m256i*)out, _mm512_castsi512_si256(v));
  else _mm512_mask_storeu_epi32(out, first_lanes(kCount), v);
}

template <int M, int kVector>
OCTAVO_INLINE void store_quants(const i32x16 (&bytes)[kPairs], int32_t* out) {
  if constexpr (kVector * 16 < Order<M>::kQuants) {
    const Order<M>& order = kOrder<M>;
    const i32x16 from = load_i(order.quants[kVector]);
    i32x16 v = _mm512_permutex2var_epi32(bytes[0], from, bytes[1]);
    if constexpr (M > 4) v = _mm512_mask_permutexvar_epi32(v, order.third[kVector], from, bytes[2]);
    store_lanes<Order<M>::kQuants - kVector * 16>(out + kVector * 16, v);
  }
}

template <int M, int kVector>
OCTAVO_INLINE void store_scalars(i32x16 scale_start, i32x16 low_am, int32_t* out) {
  if constexpr (kVector * 16 < Order<M>::kScalars) {
    const i32x16 from = load_i(kOrder<M>.scalars[kVector]);
    store_lanes<Order<M>::kScalars - kVector * 16>(
        out + kVector * 16, _mm512_permutex2var_epi32(scale_start, from, low_am));
  }
}

// The bits of |v| as an integer are in the order of |v|, an inf above all numbers and a NaN above
// it.
OCTAVO_INLINE i32x16 magnitude(f32x16 v) { return and_i(as_int(v), set1_i(0x7fffffff)); }

// Lanes of rows, as of a fold.
struct Scales {
  alignas(64) float scale[16], inverse[16];
};

template <int M>
OCTAVO_INLINE void find_scales(const float* x, int64_t stride, Scales* out) {
  const auto largest_of = [&](int m) {
    const float* row = x + m * stride;
    return _mm512_max_epi32(magnitude(load_f(row)), magnitude(load_f(row + 16)));
  };
  i32x16 largest[kPairs] = {};
#pragma GCC unroll 3
  for (int p = 0; 2 * p < M; ++p) {
    const i32x16 a = largest_of(2 * p), b = 2 * p + 1 < M ? largest_of(2 * p + 1) : a;
    largest[p] = _mm512_max_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
  }
  i32x16 bits = fold_quarters(largest, [](i32x16 a, i32x16 b) { return _mm512_max_epi32(a, b); });
  bits = _mm512_max_epi32(bits, swap_neighbours(bits));
  const f32x16 amax = as_float(bits), most = set1_f(127.0f);
  const mask16 some = (mask16)~lane_bits(lt(amax, set1_f(kSmallest))),
               spoilt = _mm512_cmpge_epi32_mask(bits, set1_i(0x7f800000));
  const f32x16 scale = _mm512_maskz_div_ps(some, amax, most);
  store_f(out->scale, select(spoilt, set1_f(__builtin_nanf("")), scale));
  store_f(out->inverse, _mm512_maskz_div_ps(some, most, amax));
}

// The bytes of rows 2p and 2p + 1, none of which is -128.
template <int M>
OCTAVO_INLINE i32x16 pair_bytes(const float* x, int64_t stride, const Scales& s, int p) {
  const auto words = [&](int m) {
    const float* row = x + m * stride;
    const f32x16 by = set1_f(s.inverse[2 * m]);
    return _mm512_packs_epi32(to_int(mul(load_f(row), by)), to_int(mul(load_f(row + 16), by)));
  };
  return _mm512_packs_epi16(words(2 * p), 2 * p + 1 < M ? words(2 * p + 1) : zero_i());
}

template <int M>
OCTAVO_INLINE void quantize_group(const float* x, int64_t stride, const Scales& s, int32_t* out) {
  const f32x16 scale = load_f(s.scale);
  const uint32_t spoilt = lane_bits(is_nan(scale));
  i32x16 bytes[kPairs] = {}, sums[kPairs] = {};
#pragma GCC unroll 3
  for (int p = 0; 2 * p < M; ++p) bytes[p] = pair_bytes<M>(x, stride, s, p);
  if (__builtin_expect(spoilt != 0, 0)) {
    for (int p = 0; p < kPairs; ++p)
      bytes[p] = _mm512_maskz_mov_epi32(lanes_of(~((spoilt >> 4 * p & 15) * 0x1111)), bytes[p]);
  }
#pragma GCC unroll 3
  for (int p = 0; 2 * p < M; ++p) sums[p] = dot_u8s8(zero_i(), set1_i(0x01010101), bytes[p]);
  store_quants<M, 0>(bytes, out);
  store_quants<M, 1>(bytes, out);
  store_quants<M, 2>(bytes, out);
  // Even lanes: of the first 16 columns, odd lanes: of the last.
  const i32x16 halves = fold_quarters(sums, [](i32x16 a, i32x16 b) { return add_i(a, b); });
  const i32x16 all = add_i(halves, swap_neighbours(halves)),
               start = sub_i(zero_i(), shift_left<7>(all)),
               low = sub_i(zero_i(), shift_left<7>(halves));
  const mask16 odd = lanes_of(0xaaaa);
  const i32x16 am = as_int(mul(scale, to_float(all))),
               scale_start = _mm512_mask_blend_epi32(odd, as_int(scale), start),
               low_am = _mm512_mask_blend_epi32(odd, low, am);
  store_scalars<M, 0>(scale_start, low_am, out + Order<M>::kQuants);
  store_scalars<M, 1>(scale_start, low_am, out + Order<M>::kQuants);
}

// In two passes over a few groups: one alone would wait for its own divisions.
template <int M>
static __attribute__((noinline)) void quantize_groups(const float* x, int64_t stride, int groups,
                                                      int32_t* out) {
  Scales scales[kRun];
  for (int first = 0; first < groups; first += kRun, x += kRun * 32) {
    const int run = groups - first < kRun ? groups - first : kRun;
#pragma GCC unroll 1
    for (int g = 0; g < run; ++g) find_scales<M>(x + g * 32, stride, &scales[g]);
#pragma GCC unroll 1
    for (int g = 0; g < run; ++g, out += 12 * M)
      quantize_group<M>(x + g * 32, stride, scales[g], out);
  }
}

void quantize_tile(const float* x, int64_t stride, int rows, int groups, int32_t* out) {
  static constexpr void (*kFromTwo[])(const float*, int64_t, int, int32_t*) = {
      quantize_groups<2>, quantize_groups<3>, quantize_groups<4>, quantize_groups<5>,
      quantize_groups<6>};
  kFromTwo[rows - 2](x, stride, groups, out);
}

}  // namespace octavo::OCTAVO_ISA

#endif
