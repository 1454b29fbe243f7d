// matmul_quantize.cpp: float32 rows into the packed activations of formats.h.
//
// One group of one row at a time in a fixed lane order, so a row's bytes do not depend on its
// neighbours.
#include "kernels/matmul_int8_rows.h"

namespace octavo::OCTAVO_ISA {

constexpr uint32_t kNan = 0x7fc00000u;

static void pack_bf16(const float* x, int32_t columns, int32_t* out, int64_t stride) {
  for (int32_t k = 0; k < columns; k += 16) {
    alignas(64) int32_t rounded[16];
    store_i(rounded, to_bf16_pair(load_f_mask(x + k, first_lanes(columns - k)), zero_f()));
    for (int i = 0; i < 16 && k + i < columns; i += 2)
      out[(k + i) / 2 * stride] = rounded[i] | (int32_t)((uint32_t)rounded[i + 1] << 16);
  }
}

// Two steps' worth of bf16 bits in 32-bit lanes, (4j, 4j+1) and (4j+2, 4j+3), to the pairs (4j,
// 4j+2) and (4j+1, 4j+3).
OCTAVO_INLINE void pair_steps(i32x16 bits, int32_t* rows, int64_t stride) {
  alignas(64) uint64_t lanes[8];
  store_i(lanes, bits);
  for (int j = 0; j < 4; ++j, rows += 4 * stride) {
    const uint64_t pairs = lanes[2 * j] | lanes[2 * j + 1] << 16;
    rows[0] = (int32_t)pairs;
    rows[stride] = (int32_t)(pairs >> 32);
  }
}

// 16 values into their rows of a group; what the kernel will take them for comes back.
OCTAVO_INLINE f32x16 pack_half(f32x16 x, int32_t* rows, int64_t stride) {
  if constexpr (kBf16Dots) {
    const i32x16 hi = to_bf16_pair(x, zero_f());
    const f32x16 hi_value = as_float(shift_left<16>(hi));
    const i32x16 lo = to_bf16_pair(sub(x, hi_value), zero_f());
    pair_steps(hi, rows, stride);
    pair_steps(lo, rows + 2 * stride, stride);
    return add(hi_value,
               as_float(shift_left<16>(lo)));  // exact: no bit of lo is below the last one of x
  } else {
    alignas(64) int32_t lanes[16];
    store_i(lanes, as_int(x));
    for (int k = 0; k < 16; ++k) rows[k * stride] = lanes[k];
    return x;
  }
}

// An inf counts as NaN: times a constant of either sign it has to spoil the token.
OCTAVO_INLINE int32_t sum_bits(float sum) {
  return sum - sum == 0.0f ? float_bits(sum) : (int32_t)kNan;
}

static void pack_bf16x2(const float* x, int32_t* group, int64_t stride) {
  const float low = reduce_add(pack_half(load_f(x), group, stride));
  const float high = reduce_add(pack_half(load_f(x + 16), group + 16 * stride, stride));
  group[32 * stride] = sum_bits(low + high);
  group[33 * stride] = sum_bits(low);
  group[34 * stride] = sum_bits(high);
}

static void pack_f32(const float* x, int32_t columns, int32_t* out, int64_t stride) {
  for (int32_t k = 0; k < columns; ++k) out[k * stride] = float_bits(x[k]);
}

__attribute__((noinline)) void quantize(const float* x, const Acts* acts, int32_t row, int32_t k0,
                                        int32_t k1) {
  const int32_t tile = tile_of(acts->rows, row), begin = tile_begin(acts->rows, tile);
  const int64_t stride = tile_begin(acts->rows, tile + 1) - begin;
  int32_t* column =
      (int32_t*)(acts->data + begin * act_row_bytes(acts->kind, acts->cols)) + (row - begin);
  if (acts->kind == A32) {
    quantize_int8(x, (k1 - k0) / 32, {column + k0 / 32 * 12 * stride, stride, 8 * stride, stride});
  } else if (acts->kind == ABF16X2) {
    for (int32_t k = k0; k < k1; k += 32)
      pack_bf16x2(x + (k - k0), column + k / 32 * 35 * stride, stride);
  } else if (acts->kind == ABF16) {
    pack_bf16(x, k1 - k0, column + k0 / 2 * stride, stride);
  } else {
    pack_f32(x, k1 - k0, column + k0 * stride, stride);
  }
}

__attribute__((noinline)) void quantize_rows(const float* x, int64_t x_stride, const Acts* acts,
                                             int32_t row0, int32_t row1, int32_t k0, int32_t k1) {
  for (int32_t row = row0; row < row1;) {
    const float* first = x + (row - row0) * x_stride;
#if OCTAVO_PACKS_TILES
    const int32_t tile = tile_of(acts->rows, row), begin = tile_begin(acts->rows, tile),
                  end = tile_begin(acts->rows, tile + 1), rows = end - begin;
    if (acts->kind == A32 && rows > 1 && row == begin && end <= row1) {
      int32_t* out = (int32_t*)(acts->data + begin * act_row_bytes(A32, acts->cols)) +
                     k0 / 32 * 12 * (int64_t)rows;
      quantize_tile(first, x_stride, rows, (k1 - k0) / 32, out);
      row = end;
      continue;
    }
#endif
    quantize(first, acts, row, k0, k1);
    ++row;
  }
}

}  // namespace octavo::OCTAVO_ISA
