// pack_parts.h: what the pack*.cpp sources show each other. One panel at a time; unused bytes are
// zero already.
#pragma once
#include "pack/pack.h"

namespace octavo {

struct PanelSource {
  const uint8_t* first_row;
  int64_t row_bytes;
  int rows;  // 1..16
  int64_t cols;
};

void pack_q4_k(const PanelSource& from, uint8_t* panel);
void pack_q5_k(const PanelSource& from, uint8_t* panel);
void pack_q6_k(const PanelSource& from, uint8_t* panel);
void pack_q2_k(const PanelSource& from, uint8_t* panel);
void pack_q3_k(const PanelSource& from, uint8_t* panel);
void pack_iq4_xs(const PanelSource& from, uint8_t* panel);
void pack_mxfp4(const PanelSource& from, uint8_t* panel);
// Whether a panel of MXFP4 keeps its values in a format: no scale is NaN, and in W4F each is one of
// fp16 too.
bool mxfp4_fits(const PanelSource& from, int32_t format);
void dequantize_mxfp4(const uint8_t* block, float* out);
bool is_float_type(int ggml_type);

// One panel of a type that is no float, in its own format.
void pack_lossless(int ggml_type, const PanelSource& from, uint8_t* panel);

// Floats as W8 or W4S: quantised to GGML's blocks, and these packed. False where a block's largest
// value makes no finite fp16 scale.
[[nodiscard]] bool pack_quantized(int ggml_type, const PanelSource& from, int32_t format,
                                  uint8_t* panel);
void pack_floats(int ggml_type, const PanelSource& from, int32_t format, uint8_t* panel);

// The eight 6-bit scales and mins of a Q4_K or Q5_K block (12 bytes).
struct SixBitScales {
  uint8_t scale[8], min[8];
};
static inline SixBitScales unpack_six_bits(const uint8_t* p) {
  SixBitScales out;
  for (int i = 0; i < 4; ++i) {
    out.scale[i] = p[i] & 63;
    out.min[i] = p[i + 4] & 63;
    out.scale[i + 4] = (uint8_t)((p[i + 8] & 15) | p[i] >> 6 << 4);
    out.min[i + 4] = (uint8_t)(p[i + 8] >> 4 | p[i + 4] >> 6 << 4);
  }
  return out;
}

// The sixteen 6-bit scales of a Q3_K block (12 bytes), 32 taken off: low nibbles of 0..7, of 8..15
// in the high nibbles of the same bytes, two high bits of i at bit i / 4 * 2 of byte 8 + i % 4.
static inline void unpack_q3_scales(const uint8_t* p, int8_t (&out)[16]) {
  for (int i = 0; i < 16; ++i) {
    const int low = i < 8 ? p[i] & 15 : p[i - 8] >> 4, high = p[8 + i % 4] >> i / 4 * 2 & 3;
    out[i] = (int8_t)((low | high << 4) - 32);
  }
}

// The eight 6-bit scales of an IQ4_XS block, which begin at byte 2, 32 taken off: 16 bits with two
// high bits each, then nibbles.
static inline void unpack_iq4_scales(const uint8_t* p, int8_t (&out)[8]) {
  const int high = p[2] | p[3] << 8;
  for (int g = 0; g < 8; ++g)
    out[g] = (int8_t)(((p[4 + g / 2] >> g % 2 * 4 & 15) | (high >> 2 * g & 3) << 4) - 32);
}

}  // namespace octavo
