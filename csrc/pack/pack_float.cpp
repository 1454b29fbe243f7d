// pack_float.cpp: any GGML type into the BF16 and F32 panels, through an exact float32
// dequantisation.
//
// F16 into BF16 and F32 into BF16 round to nearest even; NaN stays NaN. Products of scales and
// quants are exact in float32, so a value rounds at most once (scale * q + min) before BF16 rounds
// it.
#include <cstring>

#include "pack/pack_blocks.h"
#include "pack/pack_parts.h"

namespace octavo {
namespace {

float float_of(uint32_t bits) {
  float v;
  std::memcpy(&v, &bits, 4);
  return v;
}

// Choices, not branches: a loop over it becomes vectors.
uint32_t half_to_float_bits(uint16_t h) {
  const uint32_t sign = (uint32_t)(h & 0x8000) << 16;
  const int32_t rest = h & 0x7fff;
  const float tiny = (float)rest * 0x1p-24f;  // subnormal halves are exact in float32
  uint32_t below;
  std::memcpy(&below, &tiny, 4);
  const uint32_t usual = ((uint32_t)rest << 13) + (rest >= 0x7c00 ? 224u << 23 : 112u << 23);
  return sign | (rest >= 0x0400 ? usual : below);
}

float half_to_float(const uint8_t* p) {
  uint16_t h;
  std::memcpy(&h, p, 2);
  return float_of(half_to_float_bits(h));
}

uint32_t to_bf16(uint32_t bits) {
  if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fc0;
  return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

void dequantize_small(const uint8_t* src, int min_at, int high_at, int quants_at, int zero,
                      float* out) {
  const float d = half_to_float(src), m = min_at ? half_to_float(src + min_at) : 0.0f;
  const uint32_t high = high_at ? load_u32(src + high_at) : 0;
  for (int i = 0; i < 16; ++i) {
    const int low_q = (src[quants_at + i] & 15) | (int)(high >> i & 1) << 4;
    const int high_q = src[quants_at + i] >> 4 | (int)(high >> (i + 16) & 1) << 4;
    out[i] = min_at ? d * (float)low_q + m : d * (float)(low_q - zero);
    out[i + 16] = min_at ? d * (float)high_q + m : d * (float)(high_q - zero);
  }
}

void dequantize_q8_0(const uint8_t* src, float* out) {
  const float d = half_to_float(src);
  for (int i = 0; i < 32; ++i) out[i] = d * (float)(int8_t)src[2 + i];
}

void dequantize_four_or_five(const uint8_t* src, int high_bytes, float* out) {
  const float d = half_to_float(src), dmin = half_to_float(src + 2);
  const SixBitScales scales = unpack_six_bits(src + 4);
  const uint8_t* high = src + 16;
  const uint8_t* quants = src + 16 + high_bytes;
  for (int g = 0; g < 8; ++g) {
    const float scale = d * (float)scales.scale[g], min = dmin * (float)scales.min[g];
    for (int i = 0; i < 32; ++i) {
      int q = quants[g / 2 * 32 + i] >> (g % 2 * 4) & 15;
      if (high_bytes) q |= (high[i] >> g & 1) << 4;
      out[g * 32 + i] = scale * (float)q - min;
    }
  }
}

void dequantize_q6_k(const uint8_t* src, float* out) {
  const float d = half_to_float(src + 208);
  for (int g = 0; g < 8; ++g) {
    const uint8_t* quants = src + g / 4 * 64 + g % 2 * 32;
    const uint8_t* high = src + 128 + g / 4 * 32;
    for (int i = 0; i < 32; ++i) {
      const float scale = d * (float)(int8_t)src[192 + g * 2 + i / 16];
      const int q = (quants[i] >> (g % 4 / 2 * 4) & 15) | (high[i] >> (g % 4 * 2) & 3) << 4;
      out[g * 32 + i] = scale * (float)(q - 32);
    }
  }
}

// Q2_K and Q3_K: the two low bits of value 32*g + i are bits g % 4 * 2 of byte g / 4 * 32 + i.
void dequantize_q2_k(const uint8_t* src, float* out) {
  const float d = half_to_float(src + 80), dmin = half_to_float(src + 82);
  for (int k = 0; k < 256; ++k) {
    const int g = k / 32, q = src[16 + g / 4 * 32 + k % 32] >> g % 4 * 2 & 3;
    const float scale = d * (float)(src[k / 16] & 15), min = dmin * (float)(src[k / 16] >> 4);
    out[k] = scale * (float)q - min;
  }
}

void dequantize_q3_k(const uint8_t* src, float* out) {
  const float d = half_to_float(src + 108);
  int8_t scales[16];
  unpack_q3_scales(src + 96, scales);
  for (int k = 0; k < 256; ++k) {
    const int g = k / 32, low = src[32 + g / 4 * 32 + k % 32] >> g % 4 * 2 & 3;
    const int q = low | (src[k % 32] >> g & 1) << 2;
    out[k] = d * (float)scales[k / 16] * (float)(q - 4);
  }
}

void dequantize_table(const uint8_t* quants, float scale, float* out) {
  for (int i = 0; i < 16; ++i) {
    out[i] = scale * (float)(kTableBytes[quants[i] & 15] - 128);
    out[i + 16] = scale * (float)(kTableBytes[quants[i] >> 4] - 128);
  }
}

void dequantize_iq4_xs(const uint8_t* src, float* out) {
  const float d = half_to_float(src);
  int8_t scales[8];
  unpack_iq4_scales(src, scales);
  for (int g = 0; g < 8; ++g)
    dequantize_table(src + 8 + g * 16, d * (float)scales[g], out + g * 32);
}

void dequantize_block(int ggml_type, const uint8_t* src, float* out) {
  switch (ggml_type) {
    case kGgmlQ4_0: return dequantize_small(src, 0, 0, 2, 8, out);
    case kGgmlQ4_1: return dequantize_small(src, 2, 0, 4, 0, out);
    case kGgmlQ5_0: return dequantize_small(src, 0, 2, 6, 16, out);
    case kGgmlQ5_1: return dequantize_small(src, 2, 4, 8, 0, out);
    case kGgmlQ8_0: return dequantize_q8_0(src, out);
    case kGgmlQ4_K: return dequantize_four_or_five(src, 0, out);
    case kGgmlQ5_K: return dequantize_four_or_five(src, 32, out);
    case kGgmlQ2_K: return dequantize_q2_k(src, out);
    case kGgmlQ3_K: return dequantize_q3_k(src, out);
    case kGgmlIQ4_NL: return dequantize_table(src + 2, half_to_float(src), out);
    case kGgmlIQ4_XS: return dequantize_iq4_xs(src, out);
    case kGgmlMXFP4: return dequantize_mxfp4(src, out);
    default: return dequantize_q6_k(src, out);
  }
}

// Of the types that are floats already.
void widen(int ggml_type, const uint8_t* src, int64_t count, float* out) {
  if (ggml_type == kGgmlF32) {
    std::memcpy(out, src, (size_t)count * 4);
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    uint16_t half;
    std::memcpy(&half, src + i * 2, 2);
    const uint32_t bits = ggml_type == kGgmlF16 ? half_to_float_bits(half) : (uint32_t)half << 16;
    std::memcpy(out + i, &bits, 4);
  }
}

constexpr int kChunk = 256;  // columns taken at a time: 16 rows of them stay in L1

// Columns [k, k + count) of 16 rows, float bits, into the panel.
void store_chunk(const uint32_t (&bits)[16][kChunk], int rows, int64_t k, int count, int32_t format,
                 uint8_t* panel) {
  if (format == F32) {
    for (int i = 0; i < count; ++i)
      for (int r = 0; r < rows; ++r) store_u32(panel + (k + i) * 64 + r * 4, bits[r][i]);
    return;
  }
  for (int i = 0; i < count; i += 2) {
    for (int r = 0; r < rows; ++r) {
      const uint32_t second = i + 1 < count ? to_bf16(bits[r][i + 1]) : 0;
      store_u32(panel + (k + i) / 2 * 64 + r * 4, to_bf16(bits[r][i]) | second << 16);
    }
  }
}

void copy_words(const PanelSource& from, int64_t words, uint8_t* panel) {
  const int64_t whole = words / 4 * 4;
  for (int64_t w = 0; w < whole; w += 4)
    transpose_rows(from.first_row + w * 4, from.row_bytes, from.rows, 4, 0, panel + w * 64);
  for (int64_t w = whole; w < words; ++w)
    for (int r = 0; r < from.rows; ++r)
      store_u32(panel + w * 64 + r * 4, load_u32(from.first_row + r * from.row_bytes + w * 4));
}

}  // namespace

void dequantize_blocks(int ggml_type, const uint8_t* src, int64_t count, float* out) {
  if (is_float_type(ggml_type)) return widen(ggml_type, src, count, out);
  const GgmlBlock& block = ggml_block(ggml_type);
  for (int64_t i = 0; i < count; ++i)
    dequantize_block(ggml_type, src + i * block.bytes, out + i * block.values);
}

void pack_floats(int ggml_type, const PanelSource& from, int32_t format, uint8_t* panel) {
  if (ggml_type == kGgmlF32 && format == F32) return copy_words(from, from.cols, panel);
  if (ggml_type == kGgmlBF16 && format == BF16 && from.cols % 2 == 0)
    return copy_words(from, from.cols / 2, panel);
  const GgmlBlock& block = ggml_block(ggml_type);
  for (int64_t k = 0; k < from.cols; k += kChunk) {
    const int count = from.cols - k < kChunk ? (int)(from.cols - k) : kChunk;
    uint32_t bits[16][kChunk];
    for (int r = 0; r < from.rows; ++r) {
      float values[kChunk];
      const uint8_t* src = from.first_row + r * from.row_bytes + k / block.values * block.bytes;
      dequantize_blocks(ggml_type, src, count / block.values, values);
      std::memcpy(bits[r], values, (size_t)count * 4);
    }
    store_chunk(bits, from.rows, k, count, format, panel);
  }
}

}  // namespace octavo
