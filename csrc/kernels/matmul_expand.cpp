// matmul_expand.cpp: one row of a packed weight as float32 (embedding lookup), as its GGUF block
// dequantises.
//
// scale * q + min in that order; all products are exact in float32, so only the sum rounds, once,
// on every level.
#include "kernels/matmul_parts.h"
#include "kernels/simd_bytes.h"

namespace octavo::OCTAVO_ISA {

OCTAVO_INLINE float half_lane(const uint8_t* sixteen_halfs, int lane) {
  float wide[16];
  store_f(wide, load_f16(sixteen_halfs));
  return wide[lane];
}

OCTAVO_INLINE float bf16_value(uint32_t bits) {
  const uint32_t shifted = bits << 16;
  float v;
  __builtin_memcpy(&v, &shifted, 4);
  return v;
}

// The 32 unsigned weights of group g, without zero point.
static void row_quants(const uint8_t* p, int32_t format, int g, int lane, uint8_t* q) {
  const SupertileLayout& layout = kSupertiles[format];
  const uint8_t* quants = p + g * layout.group_quants;
  for (int k = 0; k < 32; ++k) {
    const int j = k >> 2, byte = lane * 4 + (k & 3);
    if (format == W8) {
      q[k] = quants[j * 64 + byte];
      continue;
    }
    q[k] = (quants[(j & 3) * 64 + byte] >> (j < 4 ? 0 : 4)) & 15;
    if (format == W6K)
      q[k] |= (p[layout.high + g * 128 + (j >> 2) * 64 + byte] >> 2 * (j & 3) & 3) << 4;
    else if (layout.high)
      q[k] |= (p[layout.high + g * 64 + j * 8 + byte / 8] >> (byte & 7) & 1) << 4;
  }
}

static void expand_group(const uint8_t* p, int32_t format, int g, int lane, float* out) {
  const SupertileLayout& layout = kSupertiles[format];
  uint8_t q[32];
  row_quants(p, format, g, lane, q);
  const int zero = format == W8    ? 128
                   : format == W4S ? 8
                   : format == W5S ? 16
                   : format == W6K ? 32
                                   : 0;
  float scale[2], min = 0.0f;  // of each 16 k
  if (layout.d == 0) {
    scale[0] = scale[1] = half_lane(p + layout.scale + g * 32, lane);
    if (layout.min) min = half_lane(p + layout.min + g * 32, lane);
  } else {
    const float d = half_lane(p + layout.d, lane);
    const int8_t* by_half = (const int8_t*)p + layout.scale + g * 32 + lane;
    scale[0] = d * (format == W6K ? (float)by_half[0] : (float)p[layout.scale + g * 16 + lane]);
    scale[1] = format == W6K ? d * (float)by_half[16] : scale[0];
    if (layout.min)
      min = -(half_lane(p + layout.dmin, lane) * (float)p[layout.min + g * 16 + lane]);
  }
  for (int k = 0; k < 32; ++k) {
    const float product = scale[k >> 4] * (float)(q[k] - zero);
    out[k] = layout.min ? product + min : product;
  }
}

__attribute__((noinline)) void expand_row(const Weight* w, int32_t row, float* out) {
  const uint8_t* p = w->data + row / 16 * w->panel_stride;
  const int lane = row % 16;
  if (w->format == F32) {
    for (int32_t k = 0; k < w->cols; ++k)
      __builtin_memcpy(out + k, p + (int64_t)k * 64 + lane * 4, 4);
  } else if (w->format == BF16) {
    for (int32_t k = 0; k < w->cols; ++k) {
      uint16_t bits;
      __builtin_memcpy(&bits, p + (int64_t)(k / 2) * 64 + lane * 4 + k % 2 * 2, 2);
      out[k] = bf16_value(bits);
    }
  } else {
    const SupertileLayout& layout = kSupertiles[w->format];
    for (int32_t g = 0; g < w->cols / 32; ++g)
      expand_group(p + (int64_t)(g / layout.groups) * layout.bytes, w->format, g % layout.groups,
                   lane, out + g * 32);
  }
}

}  // namespace octavo::OCTAVO_ISA
