// tiles/matmul.h: what the sources of matmuls on tiles show each other.
#pragma once
#include "kernels/matmul_finish.h"
#include "kernels/matmul_sums.h"
#include "kernels/tiles/words.h"

namespace octavo::OCTAVO_ISA {

// A block of rows that lie as a tile takes them (formats.h): 16 of them, the last may have fewer.
struct Block {
  uint8_t* acts;
  int32_t row, rows;
};
OCTAVO_INLINE Block block_of(const Acts* acts, int32_t index) {
  const int32_t row = index * kTileRows, left = acts->rows - row;
  return {acts->data + row * act_row_bytes(acts->kind, acts->cols), row,
          left < kTileRows ? left : kTileRows};
}

// Of the 32 k from k on, in a row of bf16: fewer at the end.
OCTAVO_INLINE int bf16_step_bytes(int32_t cols, int32_t k) {
  return cols - k < 32 ? (cols - k + 1) / 2 * 4 : 64;
}

// Those of a block's sums that are rows [row0, row1) of the product, into it. sums: [16 rows][16].
OCTAVO_INLINE void finish_block(const Range& range, const Block& block, const float* sums,
                                int32_t panel, int32_t row0, int32_t row1) {
  const int32_t begin = row0 > block.row ? row0 : block.row,
                end = row1 < block.row + block.rows ? row1 : block.row + block.rows;
  finish(range, sums + (begin - block.row) * 16, panel, 1, begin, end - begin);
}

// Columns [k0, k1), whole groups, of rows [row0, row1), x_stride floats apart, into blocks of A32.
void quantize_blocks(const float* x, int64_t x_stride, const Acts* acts, int32_t row0, int32_t row1,
                     int32_t k0, int32_t k1);

// Panels [range.panel0, panel1) times rows [row0, row1).
void multiply_int8(const Range& range, int32_t panel1, int32_t row0, int32_t row1);
void multiply_bf16(const Range& range, int32_t panel1, int32_t row0, int32_t row1);

}  // namespace octavo::OCTAVO_ISA
