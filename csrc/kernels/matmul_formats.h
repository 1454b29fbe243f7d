// matmul_formats.h: how one group of 32 k of a panel becomes unsigned bytes, scales and mins in
// registers.
//
// p is the panel's supertile, g the group inside it, j the k4 step (0..7). Offsets:
// matmul_layout.h.
#pragma once
#include "kernels/matmul_parts.h"
#include "kernels/simd_bytes.h"

namespace octavo::OCTAVO_ISA {

// static member functions are inline anyway; external linkage is harmless inside the level
// namespace.
#define OCTAVO_MEMBER __attribute__((always_inline)) static inline

// zero_shift: the weights' zero point is 1 << zero_shift (0: none). high_bits: kept apart from the
// nibbles.
template <int kZero, int kHigh, bool kHasMin>
struct Has {
  static constexpr int kZeroShift = kZero, kHighBits = kHigh;
  static constexpr bool kMin = kHasMin;
};
template <int32_t kFormat> struct Traits;
template <> struct Traits<W8> : Has<7, 0, false> {};
template <> struct Traits<W4S> : Has<3, 0, false> {};
template <> struct Traits<W4A> : Has<0, 0, true> {};
template <> struct Traits<W5S> : Has<4, 1, false> {};
template <> struct Traits<W5A> : Has<0, 1, true> {};
template <> struct Traits<W4K> : Has<0, 0, true> {};
template <> struct Traits<W5K> : Has<0, 1, true> {};
template <> struct Traits<W6K> : Has<5, 2, false> {};

template <int32_t kFormat>
struct Group : Traits<kFormat> {
  static constexpr const SupertileLayout& kLayout = kSupertiles[kFormat];
  static constexpr bool kSuperblock = kLayout.d != 0;  // scales are d times small integers

  // The 64 unsigned weights (16 rows x 4 k) of step j.
  OCTAVO_MEMBER i32x16 step(const uint8_t* p, int g, int j) {
    const uint8_t* q = p + g * kLayout.group_quants;
    if constexpr (kFormat == W8) return load_i(q + j * 64);
    const i32x16 nibbles = set1_i(0x0f0f0f0f);
    const i32x16 both = load_i(q + (j & 3) * 64);
    const i32x16 w = and_i(j < 4 ? both : shift_right16<4>(both), nibbles);
    if constexpr (Traits<kFormat>::kHighBits == 1) return mask_byte_add16(w, fifth_bits(p, g, j));
    if constexpr (Traits<kFormat>::kHighBits == 2) return or_i(w, two_high_bits(p, g, j));
    return w;
  }

  OCTAVO_MEMBER uint64_t fifth_bits(const uint8_t* p, int g, int j) {
    uint64_t bits;
    __builtin_memcpy(&bits, p + kLayout.high + g * 64 + j * 8, 8);
    return bits;
  }

  OCTAVO_MEMBER i32x16 two_high_bits(const uint8_t* p, int g, int j) {
    const i32x16 four_steps = load_i(p + kLayout.high + g * 128 + (j >> 2) * 64);
    const i32x16 place =
        set1_i(0x30303030);  // what a shift brings over from a neighbouring byte is masked off
    switch (j & 3) {
      case 0: return and_i(shift_left<4>(four_steps), place);
      case 1: return and_i(shift_left<2>(four_steps), place);
      case 2: return and_i(four_steps, place);
      default: return and_i(shift_right_u<2>(four_steps), place);
    }
  }

  OCTAVO_MEMBER f32x16 scale(const uint8_t* p, int g) {
    if constexpr (!kSuperblock) return load_f16(p + kLayout.scale + g * 32);
    return mul(load_f16(p + kLayout.d), to_float(load_u8(p + kLayout.scale + g * 16)));
  }
  // W6K: the scale of 16 k, half = 2*g or 2*g + 1.
  OCTAVO_MEMBER f32x16 half_scale(const uint8_t* p, int half) {
    return mul(load_f16(p + kLayout.d), to_float(load_s8(p + kLayout.scale + half * 16)));
  }
  OCTAVO_MEMBER f32x16 min(const uint8_t* p, int g) {
    if constexpr (!kSuperblock) return load_f16(p + kLayout.min + g * 32);
    return mul(sub(zero_f(), load_f16(p + kLayout.dmin)),
               to_float(load_u8(p + kLayout.min + g * 16)));
  }

  // How many steps of int16 pair sums cannot overflow; 0: whole dots at once.
  static constexpr int kPairSteps =
      !kPairSums || kFormat == W8 ? 0 : 8 >> Traits<kFormat>::kHighBits;

  OCTAVO_MEMBER i32x16 dot(i32x16 acc, i32x16 w, i32x16 a) {
    if constexpr (kPairSteps != 0) return add_pairs(acc, w, a);
    if constexpr (kFormat == W8) return dot_u8s8(acc, w, a);
    return dot_u7s8(acc, w, a);
  }
};

// The stream into L2 of what this core reads after this unit: the lines that begin in this group,
// of every panel.
template <int R, class G>
OCTAVO_INLINE void prefetch_group(const uint8_t* p, int64_t panel_stride, int g) {
  constexpr int kBytes = G::kLayout.bytes / G::kLayout.groups, kLines = kBytes / 64;
  const int first = (g * kBytes + 63) & -64;
  const bool one_more = kBytes % 64 != 0 && first + kLines * 64 < (g + 1) * kBytes;
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    const uint8_t* line = p + r * panel_stride + first;
#pragma GCC unroll 16
    for (int i = 0; i < kLines; ++i) __builtin_prefetch(line + i * 64, 0, 2);
    if (one_more) __builtin_prefetch(line + kLines * 64, 0, 2);
  }
}

}  // namespace octavo::OCTAVO_ISA
