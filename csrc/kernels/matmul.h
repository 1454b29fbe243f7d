// matmul.h: the table of functions that work on packed weights and packed activations, one table
// per ISA level.
//
// Layouts: formats.h. The functions check nothing: sizes, formats and alignment are the caller's
// promise.
#pragma once
#include "formats.h"

namespace octavo {

// What becomes of a sum: (sum [+ bias]) [* scale] [+ add].
struct Epilogue {
  const float* bias = nullptr;  // of the whole weight's rows; null: none
  float scale = 1.0f;
  const float* add = nullptr;  // null: none; a row's values from the first panel's on
  int64_t add_stride = 0;
};

struct MatmulKernels {
  // Packs columns [k0, k1) of one row; x points at column k0. k0 % 32 == 0; k1 % 32 == 0 or k1 ==
  // K. A32 group with an inf or NaN: scale = am = NaN, q = 0, so that only its own token is spoilt.
  // ABF16X2: its sum is NaN.
  void (*quantize)(const float* x, const Acts* acts, int32_t row, int32_t k0, int32_t k1);

  // out[m*out_stride + n - 16*panel0] = (acc(n, m) + bias[n]) * scale + add[m*add_stride + n -
  // 16*panel0] for the rows n < w->rows of panels [panel0, panel1) and all rows m of tiles [tile0,
  // tile1) (m counts from row 0 of the Acts). add may equal out. acc is one chain
  // over k in order, whatever the ranges. Integer formats, A32 rows: acc = fma(float(int dot of the
  // group), ws*as, acc), then acc = fma(min, am, acc) where there is a min; W6K, W2K and W3K: the
  // same for each half group of 16 k. ABF16X2 rows: the weights stay exact, see matmul_bf16x2.cpp.
  // BF16, rows ABF16: one dot_bf16 a pair, or in tiles (tiles/words.h) one of 32 k; F32, rows AF32:
  // one fma a column.
  void (*matmul)(const Weight* w, int32_t panel0, int32_t panel1, const Acts* a, int32_t tile0,
                 int32_t tile1, const Epilogue& epilogue, float* out, int64_t out_stride);

  // Row `row` of w as float32: exactly what the GGUF block it was packed from dequantises to.
  void (*expand_row)(const Weight* w, int32_t row, float* out);

  // Probes for benchmark headers. One iteration of spin_dot does kSpinIntOps operations (a multiply
  // and an add count as two) in registers only; read_sum reads [data, data + bytes), bytes a
  // multiple of 512.
  void (*spin_dot)(int64_t iterations, int64_t* sink);
  void (*read_sum)(const void* data, int64_t bytes, int64_t* sink);
  // As spin_dot, of fma and of dot_bf16: kSpinFloatOps and kSpinBf16Ops an iteration. spin_bf16 is
  // null where the level has no such instruction.
  void (*spin_fma)(int64_t iterations, int64_t* sink);
  void (*spin_bf16)(int64_t iterations, int64_t* sink);

  // As quantize, of rows [row0, row1), x_stride floats apart; x is row0's. Many at once take a
  // third of the time.
  void (*quantize_rows)(const float* x, int64_t x_stride, const Acts* acts, int32_t row0,
                        int32_t row1, int32_t k0, int32_t k1);

  // Panels [panel0, panel1), whole pairs, of gate and of up times tiles [tile0, tile1): their
  // columns of `out` become activation(gate) * up (rows.h), packed. What matmul, gate_mul and
  // quantize make, bit for bit. False, and nothing is written, where these three are as fast or no
  // kernel is there.
  bool (*gated)(const Weight* gate, const Weight* up, int32_t panel0, int32_t panel1, const Acts* a,
                int32_t tile0, int32_t tile1, int32_t activation, const Acts* out) = nullptr;

  bool has_blocks = false;  // whether rows may lie in blocks (lies_in_blocks), else in tiles
};

constexpr int64_t kSpinDots = 96;  // of 16 lanes
constexpr int64_t kSpinIntOps = kSpinDots * 64 * 2;
constexpr int64_t kSpinFloatOps = kSpinDots * 16 * 2;
constexpr int64_t kSpinBf16Ops = kSpinDots * 32 * 2;

}  // namespace octavo
