// matmul_kinds.h: the few kinds that every integer format becomes one of when its panels are
// unpacked.
//
// A group of 32 k of an unpacked panel: q u8[8 steps][16 rows][4 k], of zero point 128 or none;
// scale f32[16], or one for each half; in kinds with a min, min f32[16] (of W2K: what is taken off
// each half).
#pragma once
#include "kernels/matmul_formats.h"

namespace octavo::OCTAVO_ISA {

constexpr int kQuantBytes = 512;  // of a group

template <bool kHasHalves, bool kHasMin, bool kHasZero>
struct Kind {
  static constexpr bool kHalves = kHasHalves, kMin = kHasMin, kZero = kHasZero;
  static constexpr int kScales = kHalves ? 2 : 1;  // of a group
  static constexpr int kBytes = kQuantBytes + kScales * (kMin ? 2 : 1) * 64;

  // A step of group g of a supertile; no byte exceeds 255.
  template <class G> OCTAVO_MEMBER i32x16 step(const uint8_t* p, int g, int j) {
    constexpr int kRaise = kZero ? 128 - (1 << G::kZeroShift) : 0;
    return add_i(G::step(p, g, j), set1_i(kRaise * 0x01010101));
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
};
template <int32_t kFormat>
using KindOf = Kind<Group<kFormat>::kHalves, Group<kFormat>::kMin, Group<kFormat>::kZeroShift != 0>;

}  // namespace octavo::OCTAVO_ISA
