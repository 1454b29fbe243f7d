// pack_mxfp4.cpp: MXFP4: a byte of exponent, then 16 bytes of nibbles, value i and i + 16 in one.
//
// A value is one of kFloatBytes' table times 2^(exponent - 128): the table's numbers are doubled,
// so the scale is half of what the exponent says. In fp16 a power of two from 2^-24 to 2^15 is
// exact. Where all values of a block are zero its exponent means nothing, and the scale is 0.
#include <cmath>
#include <cstring>

#include "pack/pack_blocks.h"
#include "pack/pack_parts.h"

namespace octavo {
namespace {

constexpr int kBytes = 17, kNaN = 255;
constexpr int kLeast = 128 - 24, kMost = 128 + 15;  // exponents that fp16 has

// Both zeros of the table have three bits that are 0.
bool all_zero(const uint8_t* block) {
  int bits = 0;
  for (int i = 1; i < kBytes; ++i) bits |= block[i] & 0x77;
  return bits == 0;
}

bool in_half(int exponent) { return exponent >= kLeast && exponent <= kMost; }

// 0 for a block that does not fit, too: who packs it is told.
uint16_t half_scale(const uint8_t* block) {
  const int power = block[0] - 128;
  if (all_zero(block) || !in_half(block[0])) return 0;
  return (uint16_t)(power < -14 ? 1 << (power + 24) : (power + 15) << 10);
}

}  // namespace

bool mxfp4_fits(const PanelSource& from, int32_t format) {
  bool fits = true;
  for (int r = 0; r < from.rows; ++r) {
    for (int64_t group = 0; group < from.cols / 32; ++group) {
      const uint8_t* block = from.first_row + r * from.row_bytes + group * kBytes;
      fits &= block[0] != kNaN && (format != W4F || in_half(block[0]) || all_zero(block));
    }
  }
  return fits;
}

void pack_mxfp4(const PanelSource& from, uint8_t* panel) {
  constexpr SupertileLayout layout = kSupertiles[W4F];
  for (int64_t group = 0; group < from.cols / 32; ++group) {
    const uint8_t* src = from.first_row + group * kBytes;
    uint8_t* dst = panel + group / 2 * layout.bytes;
    const int half = (int)(group % 2);
    transpose_rows(src + 1, from.row_bytes, from.rows, 4, 0, dst + half * layout.group_quants);
    for (int r = 0; r < from.rows; ++r) {
      const uint16_t scale = half_scale(src + r * from.row_bytes);
      std::memcpy(dst + layout.scale + half * 32 + r * 2, &scale, 2);
    }
  }
}

void dequantize_mxfp4(const uint8_t* block, float* out) {
  const float scale = std::ldexp(1.0f, block[0] - 128);
  for (int i = 0; i < 16; ++i) {
    out[i] = scale * (float)(kFloatBytes[block[1 + i] & 15] - 16);
    out[i + 16] = scale * (float)(kFloatBytes[block[1 + i] >> 4] - 16);
  }
}

}  // namespace octavo
