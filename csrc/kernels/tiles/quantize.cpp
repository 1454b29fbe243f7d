// tiles/quantize.cpp: float32 rows as int8 groups of 32 in blocks of 16 rows (A32 of formats.h):
// the numbers of kernels/matmul_int8_rows.h.
//
// A group of all rows of a block at a time: what is one number of a row there (its largest value,
// its sums) is a lane here. A row's bytes do not depend on its neighbours: no lane meets another
// row's.
#include "kernels/matmul_int8_rows.h"
#include "kernels/tiles/matmul.h"

namespace octavo::OCTAVO_ISA {

constexpr int kLeastTogether = 6;  // rows of a block; fewer are faster one by one

// The bytes of a group of two rows, in order.
OCTAVO_INLINE i32x16 bytes_of(const float* x, float x_inverse, const float* y, float y_inverse) {
  const auto round = [](const float* p, f32x16 inverse) { return to_int(mul(load_f(p), inverse)); };
  const f32x16 a = set1_f(x_inverse), b = set1_f(y_inverse);
  const i32x16 first = _mm512_packs_epi32(round(x, a), round(x + 16, a)),
               second = _mm512_packs_epi32(round(y, b), round(y + 16, b));
  const i32x16 order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  return _mm512_permutexvar_epi32(order, _mm512_packs_epi16(first, second));
}

// sums[p]: of 4 k each, eight of row 2p, then eight of row 2p + 1. Lane i of `low` and `high`: of
// the first and of the last 16 k of row i.
OCTAVO_INLINE void sum_halves(const i32x16 (&sums)[8], i32x16* low, i32x16* high) {
  const auto join = [](i32x16 a, i32x16 b) {
    return add_i(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
  };
  i32x16 of[2];  // of rows 0 .. 7 and 8 .. 15: [low of even, high of even, of odd, of odd]
  for (int i = 0; i < 2; ++i)
    of[i] = join(join(sums[4 * i], sums[4 * i + 2]), join(sums[4 * i + 1], sums[4 * i + 3]));
  const i32x16 lows = _mm512_setr_epi32(0, 8, 1, 9, 2, 10, 3, 11, 16, 24, 17, 25, 18, 26, 19, 27);
  *low = _mm512_permutex2var_epi32(of[0], lows, of[1]);
  *high = _mm512_permutex2var_epi32(of[0], add_i(lows, set1_i(4)), of[1]);
}

// A group of rows [begin, end) of a block of `rows`, which lie at `group`. x[m]: row m's 32 values,
// or for an m outside of these any row's, whose numbers are made and dropped.
static void quantize_group_of(const float* const (&x)[16], int32_t* group, int rows, int begin,
                              int end) {
  alignas(64) float tops[16][16];
  uint32_t spoilt = 0;  // by an inf or a NaN
#pragma GCC unroll 16
  for (int m = 0; m < 16; ++m) {
    const f32x16 x0 = load_f(x[m]), x1 = load_f(x[m] + 16);
    store_f(tops[m], max(absolute(x0), absolute(x1)));
    const f32x16 zero_or_nan = add(sub(x0, x0), sub(x1, x1));
    spoilt |= (uint32_t)(lane_bits(is_nan(zero_or_nan)) != 0) << m;
  }
  const auto larger = [](f32x16 a, f32x16 b) { return max(a, b); };
  const f32x16 amax = join_lanes(tops, 16, larger), of_127 = set1_f(127.0f);
  const mask16 none = lt(amax, set1_f(kSmallest)), bad = lanes_of(spoilt);
  alignas(64) float inverse[16];
  store_f(inverse, select(none, zero_f(), div(of_127, amax)));
  i32x16 sums[8], low, high;
#pragma GCC unroll 8
  for (int m = 0; m < 16; m += 2) {
    const i32x16 bytes = bytes_of(x[m], inverse[m], x[m + 1], inverse[m + 1]);
    sums[m / 2] = dot_u7s8(zero_i(), set1_i(0x01010101), bytes);
    if (m >= begin && m + 1 < end) store_i(group + 8 * m, bytes);
    else if (m >= begin && m < end)
      _mm256_storeu_si256((__m256i*)(group + 8 * m), _mm512_castsi512_si256(bytes));
    else if (m + 1 >= begin && m + 1 < end)
      _mm256_storeu_si256((__m256i*)(group + 8 * m + 8), _mm512_extracti64x4_epi64(bytes, 1));
  }
  sum_halves(sums, &low, &high);
  const i32x16 all = add_i(low, high);
  const auto start_of = [&](i32x16 sum) {
    return _mm512_maskz_sub_epi32((mask16)~bad, zero_i(), shift_left<7>(sum));
  };
  const f32x16 scale =
      select(bad, set1_f(__builtin_nanf("")), select(none, zero_f(), div(amax, of_127)));
  const mask16 inside = (mask16)(first_lanes(end) & ~first_lanes(begin));
  const auto put = [&](int row, f32x16 v) {
    store_f_mask((float*)(group + (int64_t)row * rows), inside, v);
  };
  put(kScaleRow, scale);
  put(kStartRow, as_float(start_of(all)));
  put(kLowRow, as_float(start_of(low)));
  put(kAmRow, mul(scale, to_float(all)));
  for (int m = begin; (spoilt & lane_bits(inside)) != 0 && m < end; ++m)
    if (spoilt >> m & 1) _mm256_storeu_si256((__m256i*)(group + 8 * m), _mm256_setzero_si256());
}

void quantize_blocks(const float* x, int64_t x_stride, const Acts* acts, int32_t row0, int32_t row1,
                     int32_t k0, int32_t k1) {
  while (row0 < row1) {
    const Block block = block_of(acts, row0 / kTileRows);
    const int begin = row0 - block.row,
              end = row1 - block.row < block.rows ? row1 - block.row : block.rows;
    int32_t* group = (int32_t*)block.acts + (int64_t)k0 / 32 * kGroupRows * block.rows;
    if (end - begin < kLeastTogether) {
      for (int m = begin; m < end; ++m)
        quantize_int8(x + (m - begin) * x_stride, (k1 - k0) / 32,
                      {group + 8 * m, 1, 8 * (block.rows - m) + m, block.rows});
    } else {
      const float* rows[16];
      for (int m = 0; m < 16; ++m)
        rows[m] = x + (m < begin ? 0 : m < end ? m - begin : end - begin - 1) * x_stride;
      for (int32_t k = k0; k < k1; k += 32, group += kGroupRows * block.rows) {
        quantize_group_of(rows, group, block.rows, begin, end);
        for (const float*& row : rows) row += 32;
      }
    }
    x += (end - begin) * x_stride;
    row0 += end - begin;
  }
}

}  // namespace octavo::OCTAVO_ISA
