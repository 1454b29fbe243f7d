// simd.h: 16-lane vectors, the only words the kernels speak.
//
// A kernel source is compiled once per ISA level with -DOCTAVO_ISA=<level>; everything it defines
// lives in namespace octavo::<level>, so no symbol compiled with wide instructions can be picked
// for a narrow machine. For the same reason these headers and the kernels use no std:: templates
// and no inline functions with external linkage. What changes any bit of a kernel's results adds 1
// to kKernelVersion (dispatch.h).
//
// Types, always 16 lanes: f32x16, i32x16 (also "64 bytes"), mask16. The level headers define them
// and the operations:
//   f32x16 zero_f() set1_f(float) load_f(const float*) ; store_f(float*, f32x16)        unaligned
//   allowed f32x16 load_f_mask(const float*, mask16) ; store_f_mask(float*, mask16, f32x16) other
//   lanes 0 / untouched, never accessed f32x16 add mul sub div max min (a, b)        IEEE single,
//   round to nearest even; max/min return b if either is NaN f32x16 fma(a, b, c) a*b+c rounded
//   once, except on `base`: rounded twice (its own arithmetic class) f32x16 select(mask16, a, b) a
//   where the mask is set f32x16 round_even(f32x16) ; f32x16 scale2(f32x16 p, f32x16 n)  p * 2^n
//   for integral n in [-126, 127] i32x16 zero_i() set1_i(int32) load_i(const void*) ;
//   store_i(void*, i32x16) i32x16 add_i sub_i and_i or_i ; i32x16 shift_left<N>(a)
//   shift_right_u<N>(a) (logical) shift_right16<N>(a) (u16 lanes, logical) f32x16 to_float(i32x16)
//   ; i32x16 to_int(f32x16)         nearest even; out of range or NaN gives INT_MIN f32x16
//   as_float(i32x16) ; i32x16 as_int(f32x16)         same bits i32x16 dot_u8s8(i32x16 acc, i32x16
//   w_u8x64, i32x16 a_s8x64)      acc + sum of 4 byte products per lane, exact for all u8, s8
//   i32x16 dot_u7s8(acc, w, a)                              the same for weights <= 127 (cheaper
//   where there is no VNNI) f32x16 dot_bf16(f32x16 acc, i32x16 a_bf16x32, i32x16 b_bf16x32)  acc +
//   a.hi*b.hi + a.lo*b.lo per lane (pairs) f32x16 load_f16(const void* 16 fp16) ; f32x16
//   load_bf16(const void* 16 bf16) i32x16 to_bf16_pair(f32x16 lo, f32x16 hi)               nearest
//   even, NaN stays NaN; lane = hi << 16 | lo void store_bf16(void* 16 bf16, f32x16) nearest even,
//   NaN stays NaN; a denormal may become 0 mask16 first_lanes(int n) lt(f32x16 a, f32x16 b) (a < b)
//   ; i32x16 mask_byte_add16(i32x16 a, uint64 m)   +16 in byte b where bit b of m i32x16
//   look_up(const uint8_t* table, i32x16 bytes) byte b becomes table[b], all < 16; mask16
//   is_nan(f32x16) and_m(mask16, mask16) ; uint32_t lane_bits(mask16) (bit i = lane i) ; mask16
//   lanes_of(uint32_t bits) f32x16 swap_pairs(f32x16) (lanes 2i and 2i+1 change places) ; f32x16
//   twice_each(const float* 8) (lane i = p[i / 2]) float  reduce_add(f32x16) reduce_max(f32x16)
//   fixed tree: lanes i and i+8, then i+4, i+2, i+1
#pragma once
#include <cstddef>
#include <cstdint>

#define OCTAVO_LEVEL_base 1
#define OCTAVO_LEVEL_avx2 2
#define OCTAVO_LEVEL_avxvnni 3
#define OCTAVO_LEVEL_avx512 4
#define OCTAVO_LEVEL_avx512bf16 5
#define OCTAVO_PASTE_(a, b) a##b
#define OCTAVO_PASTE(a, b) OCTAVO_PASTE_(a, b)
#define OCTAVO_LEVEL OCTAVO_PASTE(OCTAVO_LEVEL_, OCTAVO_ISA)

#define OCTAVO_BF16_DOTS (OCTAVO_LEVEL == OCTAVO_LEVEL_avx512bf16)  // dot_bf16 is one instruction

#define OCTAVO_INLINE static inline __attribute__((always_inline))

#if OCTAVO_LEVEL >= OCTAVO_LEVEL_avx512
#include "kernels/simd_avx512.h"
#elif OCTAVO_LEVEL >= OCTAVO_LEVEL_avx2
#include "kernels/simd_avx2.h"
#else
#include "kernels/simd_base.h"
#endif
