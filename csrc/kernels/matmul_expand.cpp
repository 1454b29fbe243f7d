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

// The 32 unsigned weights of group g, zero point and all.
static void row_quants(const uint8_t* p, int32_t format, int g, int lane, uint8_t* q) {
  const SupertileLayout& layout = kSupertiles[format];
  const uint8_t* quants = p + g * layout.group_quants;
  for (int k = 0; k < 32; ++k) {
    const int j = k >> 2, byte = lane * 4 + (k & 3);
    if (format == W8) {
      q[k] = quants[j * 64 + byte];
      continue;
    }
    if (layout.group_quants == 128) {
      q[k] = quants[(j >> 2) * 64 + byte] >> 2 * (j & 3) & 3;
      if (format == W3K) q[k] |= (p[layout.high + g * 64 + byte] >> j & 1) << 2;
      continue;
    }
    q[k] = (quants[(j & 3) * 64 + byte] >> (j < 4 ? 0 : 4)) & 15;
    if (format == W6K)
      q[k] |= (p[layout.high + g * 128 + (j >> 2) * 64 + byte] >> 2 * (j & 3) & 3) << 4;
    else if (layout.high)
      q[k] |= (p[layout.high + g * 64 + j * 8 + byte / 8] >> (byte & 7) & 1) << 4;
    else if (format == W4T || format == W4TK) q[k] = kTableBytes[q[k]];
    else if (format == W4F) q[k] = kFloatBytes[q[k]];
  }
}

static int zero_point(int32_t format) {
  switch (format) {
    case W8:
    case W4T:
    case W4TK: return 128;
    case W4S: return 8;
    case W5S:
    case W4F: return 16;
    case W6K: return 32;
    case W3K: return 4;
    default: return 0;
  }
}

// Of the 16 k of one half of group g.
struct Line {
  float scale, min;
};
static Line half_line(const uint8_t* p, int32_t format, int g, int half, int lane) {
  const SupertileLayout& layout = kSupertiles[format];
  if (layout.d == 0)
    return {half_lane(p + layout.scale + g * 32, lane),
            layout.min ? half_lane(p + layout.min + g * 32, lane) : 0.0f};
  const int at = (scales_of_halves(format) ? 2 * g + half : g) * 16 + lane;
  const uint8_t small = p[layout.scale + at];
  const int scale = format == W2K                                      ? small & 15
                    : format == W6K || format == W3K || format == W4TK ? (int8_t)small
                                                                       : small;
  Line line{half_lane(p + layout.d, lane) * (float)scale, 0.0f};
  if (layout.min) {
    const int min = format == W2K ? small >> 4 : p[layout.min + at];
    line.min = -(half_lane(p + layout.dmin, lane) * (float)min);
  }
  return line;
}

static void expand_group(const uint8_t* p, int32_t format, int g, int lane, float* out) {
  uint8_t q[32];
  row_quants(p, format, g, lane, q);
  const int zero = zero_point(format);
  const bool has_min = kSupertiles[format].min != 0;
  for (int half = 0; half < 2; ++half) {
    const Line line = half_line(p, format, g, half, lane);
    for (int k = 16 * half; k < 16 * half + 16; ++k) {
      const float product = line.scale * (float)(q[k] - zero);
      out[k] = has_min ? product + line.min : product;
    }
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
