// pack_k.cpp: the lossless packers of GGML's 256-value blocks: Q4_K, Q5_K, Q6_K.
//
// A block keeps 64 values in 32 bytes (low nibbles: the first 32); a group of ours keeps 32 values
// in 16 bytes.
#include <cstring>

#include "pack/pack_blocks.h"
#include "pack/pack_parts.h"

namespace octavo {
namespace {

constexpr uint64_t kNibbles = 0x0f0f0f0f0f0f0f0full;

// 32 bytes with the nibbles of two groups -> 16 bytes a group.
void split_nibbles(const uint8_t* src, uint8_t* low_group, uint8_t* high_group) {
  for (int i = 0; i < 16; i += 8) {
    const uint64_t first = load_u64(src + i), second = load_u64(src + 16 + i);
    store_u64(low_group + i, (first & kNibbles) | (second & kNibbles) << 4);
    store_u64(high_group + i, (first >> 4 & kNibbles) | (second & ~kNibbles));
  }
}

// Bit `bit` of each of 32 bytes.
uint32_t gather_bit(const uint8_t* src, int bit) {
  uint32_t out = 0;
  for (int i = 0; i < 4; ++i) {
    const uint64_t ones = load_u64(src + i * 8) >> bit & 0x0101010101010101ull;
    out |= (uint32_t)(ones * 0x0102040810204080ull >> 56) << (8 * i);
  }
  return out;
}

void transpose_nibbles(const uint8_t (&rows)[16][128], int used, uint8_t* dst) {
  for (int g = 0; g < 8; ++g) transpose_rows(rows[0] + g * 16, 128, used, 4, 0, dst + g * 256);
}

// Q4_K: fp16 d, fp16 dmin, 12 bytes of scales, 128 of nibbles. Q5_K: 32 bytes of 5th bits before
// the nibbles.
template <int32_t kFormat>
void pack_four_or_five(const PanelSource& from, uint8_t* panel) {
  constexpr SupertileLayout layout = kSupertiles[kFormat];
  constexpr int kHigh = kFormat == W5K ? 32 : 0, kBytes = 144 + kHigh;
  for (int64_t block = 0; block < from.cols / 256; ++block) {
    uint8_t* dst = panel + block * layout.bytes;
    uint8_t nibbles[16][128];
    uint64_t high[8][8] = {};
    for (int r = 0; r < from.rows; ++r) {
      const uint8_t* src = from.first_row + r * from.row_bytes + block * kBytes;
      const SixBitScales scales = unpack_six_bits(src + 4);
      std::memcpy(dst + layout.d + r * 2, src, 2);
      std::memcpy(dst + layout.dmin + r * 2, src + 2, 2);
      for (int g = 0; g < 8; ++g) {
        dst[layout.scale + g * 16 + r] = scales.scale[g];
        dst[layout.min + g * 16 + r] = scales.min[g];
        if constexpr (kHigh != 0) scatter_fifth_bits(gather_bit(src + 16, g), r, high[g]);
      }
      for (int c = 0; c < 4; ++c)
        split_nibbles(src + 16 + kHigh + c * 32, nibbles[r] + c * 32, nibbles[r] + c * 32 + 16);
    }
    transpose_nibbles(nibbles, from.rows, dst);
    if constexpr (kHigh != 0) std::memcpy(dst + layout.high, high, sizeof high);
  }
}

}  // namespace

void pack_q4_k(const PanelSource& from, uint8_t* panel) { pack_four_or_five<W4K>(from, panel); }
void pack_q5_k(const PanelSource& from, uint8_t* panel) { pack_four_or_five<W5K>(from, panel); }

// Q6_K: 128 bytes of nibbles, 64 of high bits, 16 int8 scales, fp16 d. Each half (128 values):
// nibbles of values 0..63 low and 64..127 high in 64 bytes, high bits of value 32*i + l in bits 2i
// of byte l.
void pack_q6_k(const PanelSource& from, uint8_t* panel) {
  constexpr SupertileLayout layout = kSupertiles[W6K];
  constexpr int kBytes = 210;
  for (int64_t block = 0; block < from.cols / 256; ++block) {
    uint8_t* dst = panel + block * layout.bytes;
    uint8_t nibbles[16][128];
    for (int r = 0; r < from.rows; ++r) {
      const uint8_t* src = from.first_row + r * from.row_bytes + block * kBytes;
      std::memcpy(dst + layout.d + r * 2, src + 208, 2);
      for (int i = 0; i < 16; ++i) dst[layout.scale + i * 16 + r] = src[192 + i];
      for (int half = 0; half < 2; ++half) {
        uint8_t* groups = nibbles[r] + half * 64;
        split_nibbles(src + half * 64, groups, groups + 32);
        split_nibbles(src + half * 64 + 32, groups + 16, groups + 48);
        for (int i = 0; i < 4; ++i) {
          uint8_t* plane = dst + layout.high + (half * 4 + i) * 128 + r * 4;
          gather_two_bits(src + 128 + half * 32, 2 * i, plane, plane + 64);
        }
      }
    }
    transpose_nibbles(nibbles, from.rows, dst);
    std::memset(dst + layout.d + 32, 0, 32);
  }
}

}  // namespace octavo
