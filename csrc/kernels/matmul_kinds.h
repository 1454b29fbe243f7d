// matmul_kinds.h: what an integer format becomes when its panels are unpacked: bytes and float32
// scales.
//
// A group of 32 k of an unpacked panel: q u8[8 steps][16 rows][4 k]; scale f32[16], or one for each
// half; in kinds with a min, min f32[16] (of W2K: what is taken off each half). Where a whole dot
// is an instruction all formats become one of a few kinds, of zero point 128 or none; where narrow
// weights have cheaper dots, each keeps its bits and zero point.
#pragma once
#include "kernels/matmul_formats.h"

namespace octavo::OCTAVO_ISA {

constexpr int kQuantBytes = 512;  // of a group

template <bool kHasHalves, int kZeroPoint, int kWeightBits, bool kHasMin>
struct Kind : Has<kZeroPoint, kWeightBits, kHasMin> {
  using Has<kZeroPoint, kWeightBits, kHasMin>::kMin;
  static constexpr bool kHalves = kHasHalves, kZero = kZeroPoint != 0;
  static constexpr bool kPaired = false;
  static constexpr int kScales = kHalves ? 2 : 1;  // of a group
  static constexpr int kBytes = kQuantBytes + kScales * (kMin ? 2 : 1) * 64;

  // A step of group g of a supertile of format G; no byte exceeds 255.
  template <class G> OCTAVO_MEMBER i32x16 step(const uint8_t* p, int g, int j) {
    constexpr int kRaise = kZero ? (1 << kZeroPoint) - (1 << G::kZeroShift) : 0;
    return add_i(G::dot_step(p, g, j), set1_i(kRaise * 0x01010101));
  }

  template <class G> OCTAVO_MEMBER void unpack_scales(const uint8_t* p, int g, float* scales) {
    float* mins = scales + kScales * 16;
    if constexpr (kHalves) {
      for (int half = 0; half < 2; ++half) {
        store_f(scales + half * 16, G::half_scale(p, 2 * g + half));
        if constexpr (kMin) store_f(mins + half * 16, G::half_less(p, 2 * g + half));
      }
    } else {
      store_f(scales, G::scale(p, g));
      if constexpr (kMin) store_f(mins, G::min(p, g));
    }
  }

  // Of the one group at p, as matmul_formats.h has them of its formats.
  OCTAVO_MEMBER i32x16 dot_step(const uint8_t* p, int, int j) { return load_i(p + j * 64); }
  OCTAVO_MEMBER f32x16 scale(const uint8_t* p, int) { return scales(p, 0); }
  OCTAVO_MEMBER f32x16 min(const uint8_t* p, int) { return scales(p, 1); }
  OCTAVO_MEMBER f32x16 half_scale(const uint8_t* p, int half) { return scales(p, half); }
  OCTAVO_MEMBER f32x16 half_less(const uint8_t* p, int half) { return scales(p, 2 + half); }
  OCTAVO_MEMBER f32x16 scales(const uint8_t* p, int i) {
    return load_f((const float*)(p + kQuantBytes) + i * 16);
  }
};

static_assert(!kSignedDots || kPairSums,
              "bytes of Kind<.., 8, ..> are unsigned where dots are whole");
template <class G>
using UnpackedKind = Kind<G::kHalves, kPairSums || G::kZeroShift == 0 ? G::kZeroShift : 7,
                          kPairSums ? G::kBits : 8, G::kMin>;
template <int32_t kFormat> using KindOf = UnpackedKind<Group<kFormat>>;

}  // namespace octavo::OCTAVO_ISA
