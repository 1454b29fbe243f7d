// pack_quantized.cpp: floats into the W8 and W4S panels: quantised to Q8_0 and Q4_0 blocks as GGML
// does, and these packed as if a file had them.
//
// Each step is one float operation rounded to nearest even, in the same order at every level.
// Where a block's largest value is so small that 1 / scale is infinite, all its quants are 0; the
// scale in fp16 is then 0 too.
#include <cmath>
#include <cstring>

#include "pack/pack_blocks.h"
#include "pack/pack_parts.h"

namespace octavo {
namespace {

constexpr int kValues = 32;  // of a block
constexpr int kChunk = 512;  // columns quantised at a time: 16 rows of their blocks stay in L1
constexpr uint32_t kInfinity = 0x7f800000;

uint32_t bits_of(float v) {
  uint32_t bits;
  std::memcpy(&bits, &v, 4);
  return bits;
}

float float_of(uint32_t bits) {
  float v;
  std::memcpy(&v, &bits, 4);
  return v;
}

// To nearest even; what is too large becomes infinite, as does NaN, which no caller keeps.
uint16_t to_half(float v) {
  const uint32_t sign = bits_of(v) >> 16 & 0x8000, size = bits_of(v) & 0x7fffffff;
  if (size >= 0x47800000) return (uint16_t)(sign | 0x7c00);
  if (size < 0x38800000)  // subnormal: 0.5f has their step, 2^-24, as its last place
    return (uint16_t)(sign | (bits_of(float_of(size) + 0.5f) - bits_of(0.5f)));
  return (uint16_t)(sign | (size - 0x38000000 + 0xfff + (size >> 13 & 1)) >> 13);
}

bool is_finite_half(uint16_t h) { return (h & 0x7c00) != 0x7c00; }

// The largest magnitude, as bits: they are in the order of the magnitudes, NaN above all.
uint32_t largest_bits(const float* x) {
  int32_t largest = 0;
  for (int i = 0; i < kValues; ++i) {
    const int32_t size = (int32_t)(bits_of(x[i]) & 0x7fffffff);
    largest = size > largest ? size : largest;
  }
  return (uint32_t)largest;
}

// 1 / d, or 0 where that is none.
float inverse(float d) {
  const float found = d == 0 ? 0 : 1 / d;
  return (bits_of(found) & 0x7fffffff) < kInfinity ? found : 0;
}

bool quantize_q8_0(const float* x, uint8_t* block) {
  const uint32_t largest = largest_bits(x);
  const float d = float_of(largest) / 127, id = inverse(d);
  const uint16_t scale = to_half(d);
  if (largest >= kInfinity || !is_finite_half(scale)) return false;
  std::memcpy(block, &scale, 2);
  int32_t quants[kValues];
  for (int i = 0; i < kValues; ++i) {  // halves away from zero
    const float v = x[i] * id, size = float_of(bits_of(v) & 0x7fffffff);
    const int32_t whole = (int32_t)size;
    const int32_t rounded = whole + (size - (float)whole >= 0.5f);
    quants[i] = v < 0 ? -rounded : rounded;
  }
  for (int i = 0; i < kValues; ++i) block[2 + i] = (uint8_t)quants[i];
  return true;
}

bool quantize_q4_0(const float* x, uint8_t* block) {
  const uint32_t largest = largest_bits(x);
  int at = 0;
  while ((bits_of(x[at]) & 0x7fffffff) != largest) ++at;
  const float d = x[at] / -8, id = inverse(d);
  const uint16_t scale = to_half(d);
  if (largest >= kInfinity || !is_finite_half(scale)) return false;
  std::memcpy(block, &scale, 2);
  int32_t quants[kValues];
  for (int i = 0; i < kValues; ++i) {
    const int32_t q = (int32_t)(x[i] * id + 8.5f);
    quants[i] = q < 15 ? q : 15;
  }
  for (int i = 0; i < 16; ++i) block[2 + i] = (uint8_t)(quants[i] | quants[i + 16] << 4);
  return true;
}

}  // namespace

bool pack_quantized(int ggml_type, const PanelSource& from, int32_t format, uint8_t* panel) {
  const int own_type = format == W8 ? kGgmlQ8_0 : kGgmlQ4_0;
  const int64_t value_bytes = ggml_block(ggml_type).bytes, block_bytes = ggml_block(own_type).bytes;
  constexpr int64_t kRowBytes = kChunk / kValues * 34;
  uint8_t blocks[16 * kRowBytes];
  float values[kChunk];
  for (int64_t k = 0; k < from.cols; k += kChunk) {
    const int64_t count = from.cols - k < kChunk ? from.cols - k : kChunk;
    for (int r = 0; r < from.rows; ++r) {
      dequantize_blocks(ggml_type, from.first_row + r * from.row_bytes + k * value_bytes, count,
                        values);
      for (int64_t b = 0; b < count / kValues; ++b) {
        uint8_t* const block = blocks + r * kRowBytes + b * block_bytes;
        const float* const x = values + b * kValues;
        if (!(format == W8 ? quantize_q8_0(x, block) : quantize_q4_0(x, block))) return false;
      }
    }
    pack_lossless(own_type, {blocks, kRowBytes, from.rows, count},
                  panel + k / 64 * kSupertiles[format].bytes);
  }
  return true;
}

}  // namespace octavo
