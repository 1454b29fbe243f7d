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

}  // namespace octavo
