// simd.h: 16-lane vectors, the only words the kernels speak.
//
// A kernel source is compiled once per ISA level with -DOCTAVO_ISA=<level>; everything it defines
// lives in namespace octavo::<level>, so no symbol compiled with wide instructions can be picked
// for a narrow machine. For the same reason these headers and the kernels use no std:: templates
// and no inline functions with external linkage. What changes any bit of a kernel's results adds 1
// to kKernelVersion (dispatch.h).
//
// Types, always 16 lanes: f32x16, i32x16 (also "64 bytes"), mask16. The level headers define them
// and these words:
//
// clang-format off
//   float   zero_f() set1_f(float) load_f(p) store_f(p, v)   unaligned allowed
//           load_f_mask(p, m) store_f_mask(p, m, v)          other lanes 0 / untouched, never accessed
//           add sub mul div max min                          IEEE single; max, min: b if either is NaN
//           fma(a, b, c)                                     a*b+c rounded once; on base twice: a class of its own
//           select(m, a, b) round_even(a)                    a where the mask is set
//           scale2(p, n)                                     p * 2^n for integral n in [-126, 127]
//           scale2_from(low, x, p, n)                        the same; 0 in lanes where x < low
//           swap_lanes<K>(a) twice_each(8 floats)            lanes i and i ^ K (1, 2, 4, 8) change places; lane i = p[i / 2]
//           reduce_add(a) reduce_max(a)                      fixed tree: lanes i and i+8, then i+4, i+2, i+1
//   int32   zero_i() set1_i(v) load_i(p) store_i(p, v) add_i sub_i and_i or_i
//           shift_left<N> shift_right_u<N> shift_right_s<N>  logical and arithmetic; shift_right16<N>: of 16-bit lanes
//           to_float(a) to_int(a)                            nearest even; out of range or NaN: INT_MIN
//           as_float(a) as_int(a)                            the same bits
//   bytes   dot_u8s8(acc, w, a)                              acc + 4 products a lane, exact for all u8, s8
//           dot_u7s8(acc, w, a)                              the same for w <= 127, cheaper where there is no VNNI
//           mask_byte_add16(a, bits64)                       +16 in byte b where bit b is set
//           look_up(table16, bytes)                          byte b becomes table[b], all < 16
//   bf16    dot_bf16(acc, a, b)                              acc + a.hi*b.hi + a.lo*b.lo a lane
//           load_f16(16 halves) load_bf16(16)
//           to_bf16_pair(lo, hi)                             lane = hi << 16 | lo; nearest even, NaN stays NaN
//           store_bf16(p, v)                                 the same, but a denormal may become 0
//   masks   first_lanes(n) lt(a, b) is_nan(a) and_m(a, b)
//           lane_bits(m) lanes_of(bits)                      bit i = lane i
// clang-format on
#pragma once
#include <cstddef>
#include <cstdint>

#define OCTAVO_LEVEL_base 1
#define OCTAVO_LEVEL_avx2 2
#define OCTAVO_LEVEL_avxvnni 3
#define OCTAVO_LEVEL_avx512 4
#define OCTAVO_LEVEL_avx512bf16 5
#define OCTAVO_LEVEL_amx 6
#define OCTAVO_LEVEL_amx_plain 7
#define OCTAVO_PASTE_(a, b) a##b
#define OCTAVO_PASTE(a, b) OCTAVO_PASTE_(a, b)
#define OCTAVO_LEVEL OCTAVO_PASTE(OCTAVO_LEVEL_, OCTAVO_ISA)

#define OCTAVO_BF16_DOTS (OCTAVO_LEVEL == OCTAVO_LEVEL_avx512bf16)  // dot_bf16 is one instruction
#define OCTAVO_BF16_STORES \
  (OCTAVO_BF16_DOTS || OCTAVO_LEVEL == OCTAVO_LEVEL_amx)  // so is store_bf16

#define OCTAVO_INLINE static inline __attribute__((always_inline))

#if OCTAVO_LEVEL >= OCTAVO_LEVEL_avx512
#include "kernels/simd_avx512.h"
#elif OCTAVO_LEVEL >= OCTAVO_LEVEL_avx2
#include "kernels/simd_avx2.h"
#else
#include "kernels/simd_base.h"
#endif
