// pack_few_bits.cpp: the lossless packers of the 256-value blocks without 4-bit quants of their
// own: Q2_K and Q3_K (two bits and three), IQ4_XS (places in a table).
#include <cstring>

#include "pack/pack_blocks.h"
#include "pack/pack_parts.h"

namespace octavo {
namespace {

// 64 bytes with two bits of value 32*g + i at bits g % 4 * 2 of byte g / 4 * 32 + i, into row r.
void pack_two_bits(const uint8_t* src, int r, uint8_t* quants) {
  for (int g = 0; g < 8; ++g) {
    uint8_t* group = quants + g * 128 + r * 4;
    gather_two_bits(src + g / 4 * 32, g % 4 * 2, group, group + 64);
  }
}

// Bit `bit` of 32 bytes as 4 bytes: step j in bit j.
uint32_t gather_third_bits(const uint8_t* src, int bit) {
  uint32_t out = 0;
  for (int j = 0; j < 8; ++j) out |= (load_u32(src + j * 4) >> bit & 0x01010101u) << j;
  return out;
}

}  // namespace

// Q2_K: 16 bytes with a scale and a min of 16 values in their nibbles, 64 of quants, fp16 d, fp16
// dmin.
void pack_q2_k(const PanelSource& from, uint8_t* panel) {
  constexpr SupertileLayout layout = kSupertiles[W2K];
  constexpr int kBytes = 84;
  for (int64_t block = 0; block < from.cols / 256; ++block) {
    uint8_t* dst = panel + block * layout.bytes;
    for (int r = 0; r < from.rows; ++r) {
      const uint8_t* src = from.first_row + r * from.row_bytes + block * kBytes;
      pack_two_bits(src + 16, r, dst);
      for (int i = 0; i < 16; ++i) dst[layout.scale + i * 16 + r] = src[i];
      std::memcpy(dst + layout.d + r * 2, src + 80, 2);
      std::memcpy(dst + layout.dmin + r * 2, src + 82, 2);
    }
  }
}

// Q3_K: 32 bytes of third bits (of value 32*g + i: bit g of byte i), 64 of the two lower ones, 12
// of scales, fp16 d.
void pack_q3_k(const PanelSource& from, uint8_t* panel) {
  constexpr SupertileLayout layout = kSupertiles[W3K];
  constexpr int kBytes = 110;
  for (int64_t block = 0; block < from.cols / 256; ++block) {
    uint8_t* dst = panel + block * layout.bytes;
    for (int r = 0; r < from.rows; ++r) {
      const uint8_t* src = from.first_row + r * from.row_bytes + block * kBytes;
      pack_two_bits(src + 32, r, dst);
      for (int g = 0; g < 8; ++g)
        store_u32(dst + layout.high + g * 64 + r * 4, gather_third_bits(src, g));
      int8_t scales[16];
      unpack_q3_scales(src + 96, scales);
      for (int i = 0; i < 16; ++i) dst[layout.scale + i * 16 + r] = (uint8_t)scales[i];
      std::memcpy(dst + layout.d + r * 2, src + 108, 2);
    }
    std::memset(dst + layout.d + 32, 0, 32);
  }
}

// IQ4_XS: fp16 d, 6 bytes of scales, 128 of nibbles: 16 bytes a group, as ours.
void pack_iq4_xs(const PanelSource& from, uint8_t* panel) {
  constexpr SupertileLayout layout = kSupertiles[W4TK];
  constexpr int kBytes = 136;
  for (int64_t block = 0; block < from.cols / 256; ++block) {
    uint8_t* dst = panel + block * layout.bytes;
    const uint8_t* first = from.first_row + block * kBytes;
    for (int g = 0; g < 8; ++g)
      transpose_rows(first + 8 + g * 16, from.row_bytes, from.rows, 4, 0,
                     dst + g * layout.group_quants);
    for (int r = 0; r < from.rows; ++r) {
      const uint8_t* src = first + r * from.row_bytes;
      int8_t scales[8];
      unpack_iq4_scales(src, scales);
      for (int g = 0; g < 8; ++g) dst[layout.scale + g * 16 + r] = (uint8_t)scales[g];
      std::memcpy(dst + layout.d + r * 2, src, 2);
    }
    std::memset(dst + layout.d + 32, 0, 32);
  }
}

}  // namespace octavo
