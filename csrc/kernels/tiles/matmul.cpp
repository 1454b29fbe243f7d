// tiles/matmul.cpp: which products go through tiles, the rows they take, and the table of the
// level.
//
// Integer weights and int8 rows, from kLeastBlocked rows on; all else is avx512's. Dots are
// integers and the chains of their sums are avx512's too, so the switch changes no bit.
#include "kernels/tiles/matmul.h"

#include "kernels/tiles/avx512.h"

namespace octavo::OCTAVO_ISA {

static_assert(kActBlock == kTileRows);

static bool in_blocks(const Acts* acts) { return lies_in_blocks(acts->kind, acts->rows); }

static void round_bf16(const float* x, const Acts* acts, const Block& block, int m, int32_t k0,
                       int32_t k1) {
  for (int32_t k = k0; k < k1; k += 32, x += 32) {
    const int left = k1 - k, bytes = bf16_step_bytes(acts->cols, k);
    alignas(64) uint8_t row[64];
    for (int half = 0; half < 2; ++half) {
      const f32x16 values = load_f_mask(x + 16 * half, first_lanes(left - 16 * half));
      _mm256_store_si256((__m256i*)row + half, _mm512_cvtepi32_epi16(to_bf16_bits(values)));
    }
    __builtin_memcpy(block.acts + (int64_t)k * 2 * block.rows + m * bytes, row, (size_t)bytes);
  }
}

void quantize_rows(const float* x, int64_t x_stride, const Acts* acts, int32_t row0, int32_t row1,
                   int32_t k0, int32_t k1) {
  if (!in_blocks(acts))
    return avx512::matmul_kernels()->quantize_rows(x, x_stride, acts, row0, row1, k0, k1);
  if (acts->kind == A32) return quantize_blocks(x, x_stride, acts, row0, row1, k0, k1);
  for (int32_t row = row0; row < row1; ++row, x += x_stride)
    round_bf16(x, acts, block_of(acts, row / kTileRows), row % kTileRows, k0, k1);
}

void quantize(const float* x, const Acts* acts, int32_t row, int32_t k0, int32_t k1) {
  quantize_rows(x, 0, acts, row, row + 1, k0, k1);
}

static void matmul(const Weight* w, int32_t panel0, int32_t panel1, const Acts* a, int32_t tile0,
                   int32_t tile1, const Epilogue& epilogue, float* out, int64_t out_stride) {
  if (!in_blocks(a))
    return avx512::matmul_kernels()->matmul(w, panel0, panel1, a, tile0, tile1, epilogue, out,
                                            out_stride);
  const Range range{w,      a, epilogue, out, out_stride, panel0, act_row_bytes(a->kind, a->cols),
                    w->cols};
  const auto multiply = a->kind == ABF16 ? multiply_bf16 : multiply_int8;
  multiply(range, panel1, tile_begin(a->rows, tile0), tile_begin(a->rows, tile1));
}

const MatmulKernels* matmul_kernels() {
  static constexpr MatmulKernels table{.quantize = quantize,
                                       .matmul = matmul,
                                       .expand_row = avx512::expand_row,
                                       .spin_dot = avx512::spin_dot,
                                       .read_sum = avx512::read_sum,
                                       .spin_fma = avx512::spin_fma,
                                       .spin_bf16 = nullptr,
                                       .quantize_rows = quantize_rows,
                                       .has_blocks = true};
  return &table;
}

}  // namespace octavo::OCTAVO_ISA
