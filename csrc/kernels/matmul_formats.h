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

// kZero: the weights' zero point is 1 << kZero (0: none). kWeightBits: of a weight as it meets the
// activations.
template <int kZero, int kWeightBits, bool kHasMin>
struct Has {
  static constexpr int kZeroShift = kZero, kBits = kWeightBits;
  static constexpr bool kMin = kHasMin;
  static constexpr bool kSigned = kSignedDots && kBits == 8;

  // How many steps of int16 pair sums cannot overflow; 0: whole dots at once, which where they are
  // three instructions of vectors are cheaper than pairs of two steps.
  static constexpr int kMore = kBits > 4 ? kBits - 4 : 0;
  static constexpr bool kPairs = kPairSums && kMore < (kSignedDots ? 2 : 4);
  static constexpr int kPairSteps = kPairs ? 8 >> kMore : 0;

  OCTAVO_MEMBER i32x16 dot(i32x16 acc, i32x16 w, i32x16 a) {
    if constexpr (kPairSteps != 0) return add_pairs(acc, w, a);
    if constexpr (kSigned) return dot_s8s8(acc, w, a);
    if constexpr (kMore == 4) return dot_u8s8(acc, w, a);
    return dot_u7s8(acc, w, a);
  }
};
template <int32_t kFormat> struct Traits;
template <> struct Traits<W8> : Has<7, 8, false> {};
template <> struct Traits<W4S> : Has<3, 4, false> {};
template <> struct Traits<W4A> : Has<0, 4, true> {};
template <> struct Traits<W5S> : Has<4, 5, false> {};
template <> struct Traits<W5A> : Has<0, 5, true> {};
template <> struct Traits<W4K> : Has<0, 4, true> {};
template <> struct Traits<W5K> : Has<0, 5, true> {};
template <> struct Traits<W6K> : Has<5, 6, false> {};
template <> struct Traits<W2K> : Has<0, 2, true> {};
template <> struct Traits<W3K> : Has<2, 3, false> {};
template <> struct Traits<W4T> : Has<7, 8, false> {};
template <> struct Traits<W4TK> : Has<7, 8, false> {};
template <> struct Traits<W4F> : Has<4, 5, false> {};

template <int32_t kFormat>
struct Group : Traits<kFormat> {
  static constexpr const SupertileLayout& kLayout = kSupertiles[kFormat];
  static constexpr bool kSuperblock = kLayout.d != 0;  // scales are d times small integers
  static constexpr bool kHalves = scales_of_halves(kFormat);
  static constexpr bool kPaired = kLayout.group_quants == 256;  // a byte has two steps' weights

  // The 64 unsigned weights (16 rows x 4 k) of step j.
  OCTAVO_MEMBER i32x16 step(const uint8_t* p, int g, int j) {
    const uint8_t* q = p + g * kLayout.group_quants;
    if constexpr (kFormat == W8) return load_i(q + j * 64);
    if constexpr (kFormat == W2K) return low_two_bits(q, j);
    if constexpr (kFormat == W3K) return or_i(low_two_bits(q, j), third_bits(p, g, j));
    const i32x16 nibbles = set1_i(0x0f0f0f0f);
    const i32x16 both = load_i(q + (j & 3) * 64);
    const i32x16 w = and_i(j < 4 ? both : shift_right16<4>(both), nibbles);
    if constexpr (kFormat == W4F) return look_up(kFloatBytes, w);
    if constexpr (Traits<kFormat>::kBits == 5) return mask_byte_add16(w, fifth_bits(p, g, j));
    if constexpr (kFormat == W6K) return or_i(w, two_high_bits(p, g, j));
    if constexpr (kFormat == W4T || kFormat == W4TK) return look_up(kTableBytes, w);
    return w;
  }

  // The same as they meet the activations: less their zero point where kSigned.
  OCTAVO_MEMBER i32x16 dot_step(const uint8_t* p, int g, int j) {
    const i32x16 w = step(p, g, j);
    return Group::kSigned ? less_128(w) : w;
  }

  // What a shift brings over from a neighbouring byte is masked off, here and below.
  OCTAVO_MEMBER i32x16 low_two_bits(const uint8_t* q, int j) {
    const i32x16 four_steps = load_i(q + (j >> 2) * 64), place = set1_i(0x03030303);
    switch (j & 3) {
      case 0: return and_i(four_steps, place);
      case 1: return and_i(shift_right_u<2>(four_steps), place);
      case 2: return and_i(shift_right_u<4>(four_steps), place);
      default: return and_i(shift_right_u<6>(four_steps), place);
    }
  }

  OCTAVO_MEMBER i32x16 third_bits(const uint8_t* p, int g, int j) {
    const i32x16 steps = load_i(p + kLayout.high + g * 64), place = set1_i(0x04040404);
    switch (j) {
      case 0: return and_i(shift_left<2>(steps), place);
      case 1: return and_i(shift_left<1>(steps), place);
      case 2: return and_i(steps, place);
      case 3: return and_i(shift_right_u<1>(steps), place);
      case 4: return and_i(shift_right_u<2>(steps), place);
      case 5: return and_i(shift_right_u<3>(steps), place);
      case 6: return and_i(shift_right_u<4>(steps), place);
      default: return and_i(shift_right_u<5>(steps), place);
    }
  }

  OCTAVO_MEMBER uint64_t fifth_bits(const uint8_t* p, int g, int j) {
    uint64_t bits;
    __builtin_memcpy(&bits, p + kLayout.high + g * 64 + j * 8, 8);
    return bits;
  }

  OCTAVO_MEMBER i32x16 two_high_bits(const uint8_t* p, int g, int j) {
    const i32x16 four_steps = load_i(p + kLayout.high + g * 128 + (j >> 2) * 64);
    const i32x16 place = set1_i(0x30303030);
    switch (j & 3) {
      case 0: return and_i(shift_left<4>(four_steps), place);
      case 1: return and_i(shift_left<2>(four_steps), place);
      case 2: return and_i(four_steps, place);
      default: return and_i(shift_right_u<2>(four_steps), place);
    }
  }

  OCTAVO_MEMBER f32x16 scale(const uint8_t* p, int g) {
    if constexpr (!kSuperblock) return load_f16(p + kLayout.scale + g * 32);
    const uint8_t* small = p + kLayout.scale + g * 16;
    return mul(load_f16(p + kLayout.d),
               to_float(kFormat == W4TK ? load_s8(small) : load_u8(small)));
  }
  // The scale, and of W2K what is taken off, of 16 k; half = 2*g or 2*g + 1.
  OCTAVO_MEMBER f32x16 half_scale(const uint8_t* p, int half) {
    const uint8_t* small = p + kLayout.scale + half * 16;
    const i32x16 scale = kFormat == W2K ? and_i(load_u8(small), set1_i(15)) : load_s8(small);
    return mul(load_f16(p + kLayout.d), to_float(scale));
  }
  OCTAVO_MEMBER f32x16 half_less(const uint8_t* p, int half) {
    const i32x16 min = shift_right_u<4>(load_u8(p + kLayout.min + half * 16));
    return mul(load_f16(p + kLayout.dmin), to_float(min));
  }
  OCTAVO_MEMBER f32x16 min(const uint8_t* p, int g) {
    if constexpr (!kSuperblock) return load_f16(p + kLayout.min + g * 32);
    return mul(sub(zero_f(), load_f16(p + kLayout.dmin)),
               to_float(load_u8(p + kLayout.min + g * 16)));
  }
};

// One panel for one or two rows is a stream from memory: it comes into L1 a fixed way ahead of
// where it is read, which fits there beside the rows and is far enough (docs/kernels.md).
constexpr int kStreamAhead = 12 << 10;  // bytes

template <class G>
OCTAVO_INLINE void prefetch_stream(const uint8_t* p, int g) {
  constexpr int kBytes = G::kLayout.bytes / G::kLayout.groups;
#pragma GCC unroll 16
  for (int at = 0; at < kBytes; at += 64)
    __builtin_prefetch(p + g * kBytes + at + kStreamAhead, 0, 3);
}

// The stream into L2 of what this core reads after this unit: the lines that begin in this group.
template <class G>
OCTAVO_INLINE void prefetch_group(const uint8_t* p, int64_t panel_stride, Ahead ahead, int g) {
  constexpr int kBytes = G::kLayout.bytes / G::kLayout.groups, kLines = kBytes / 64;
  const int first = (g * kBytes + 63) & -64;
  const bool one_more = kBytes % 64 != 0 && first + kLines * 64 < (g + 1) * kBytes;
#pragma GCC unroll 1
  for (int r = 0; r < ahead.panels; ++r) {
    const uint8_t* line = p + ahead.offset + r * panel_stride + first;
#pragma GCC unroll 16
    for (int i = 0; i < kLines; ++i) __builtin_prefetch(line + i * 64, 0, 2);
    if (one_more) __builtin_prefetch(line + kLines * 64, 0, 2);
  }
}

}  // namespace octavo::OCTAVO_ISA
