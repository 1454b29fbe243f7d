// simd_probe.cpp: the words of simd.h, exp.h and tanh.h, one function each over 64-byte arguments.
// Only tests call them.
//
// Masks travel as lane bits in the first four bytes of an argument or result; a scalar result is
// the first lane.
#include "kernels/exp.h"

#include "kernels/simd_probe.h"
#include "kernels/tanh.h"

namespace octavo::OCTAVO_ISA {

#define OCTAVO_WORD(name, ...)                                                                   \
  static void probe_##name([[maybe_unused]] const uint8_t* a, [[maybe_unused]] const uint8_t* b, \
                           [[maybe_unused]] const uint8_t* c, uint8_t* out) {                    \
    __VA_ARGS__;                                                                                 \
  }

static f32x16 f(const uint8_t* p) { return load_f((const float*)p); }
static i32x16 i(const uint8_t* p) { return load_i(p); }
static void put(uint8_t* out, f32x16 v) { store_f((float*)out, v); }
static void put(uint8_t* out, i32x16 v) { store_i(out, v); }
static void put(uint8_t* out, float v) { __builtin_memcpy(out, &v, sizeof v); }
static void put_bits(uint8_t* out, mask16 m) {
  const uint32_t bits = lane_bits(m);
  __builtin_memcpy(out, &bits, sizeof bits);
}
static int32_t scalar(const uint8_t* p) {
  int32_t v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
static uint64_t scalar64(const uint8_t* p) {
  uint64_t v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
static mask16 m(const uint8_t* p) { return lanes_of((uint32_t)scalar(p)); }

OCTAVO_WORD(zero_f, put(out, zero_f()))
OCTAVO_WORD(set1_f, put(out, set1_f(*(const float*)a)))
OCTAVO_WORD(load_f_mask, put(out, load_f_mask((const float*)a, m(b))))
OCTAVO_WORD(store_f_mask, store_f_mask((float*)out, m(b), f(a)))
OCTAVO_WORD(add, put(out, add(f(a), f(b))))
OCTAVO_WORD(sub, put(out, sub(f(a), f(b))))
OCTAVO_WORD(mul, put(out, mul(f(a), f(b))))
OCTAVO_WORD(div, put(out, div(f(a), f(b))))
OCTAVO_WORD(max, put(out, max(f(a), f(b))))
OCTAVO_WORD(min, put(out, min(f(a), f(b))))
OCTAVO_WORD(fma, put(out, fma(f(a), f(b), f(c))))
OCTAVO_WORD(select, put(out, select(m(c), f(a), f(b))))
OCTAVO_WORD(round_even, put(out, round_even(f(a))))
OCTAVO_WORD(scale2, put(out, scale2(f(a), f(b))))
OCTAVO_WORD(scale2_from, put(out, scale2_from(f(a), f(b), set1_f(0.75f), f(c))))
OCTAVO_WORD(zero_i, put(out, zero_i()))
OCTAVO_WORD(set1_i, put(out, set1_i(scalar(a))))
OCTAVO_WORD(add_i, put(out, add_i(i(a), i(b))))
OCTAVO_WORD(sub_i, put(out, sub_i(i(a), i(b))))
OCTAVO_WORD(and_i, put(out, and_i(i(a), i(b))))
OCTAVO_WORD(or_i, put(out, or_i(i(a), i(b))))
OCTAVO_WORD(shift_left_4, put(out, shift_left<4>(i(a))))
OCTAVO_WORD(shift_left_16, put(out, shift_left<16>(i(a))))
OCTAVO_WORD(shift_right_u_4, put(out, shift_right_u<4>(i(a))))
OCTAVO_WORD(shift_right_u_16, put(out, shift_right_u<16>(i(a))))
OCTAVO_WORD(shift_right_s_7, put(out, shift_right_s<7>(i(a))))
OCTAVO_WORD(shift_right16_4, put(out, shift_right16<4>(i(a))))
OCTAVO_WORD(to_float, put(out, to_float(i(a))))
OCTAVO_WORD(to_int, put(out, to_int(f(a))))
OCTAVO_WORD(as_float, put(out, as_float(i(a))))
OCTAVO_WORD(as_int, put(out, as_int(f(a))))
OCTAVO_WORD(dot_u8s8, put(out, dot_u8s8(i(c), i(a), i(b))))
OCTAVO_WORD(dot_u7s8, put(out, dot_u7s8(i(c), i(a), i(b))))
OCTAVO_WORD(dot_bf16, put(out, dot_bf16(f(c), i(a), i(b))))
OCTAVO_WORD(load_f16, put(out, load_f16(a)))
OCTAVO_WORD(load_bf16, put(out, load_bf16(a)))
OCTAVO_WORD(to_bf16_pair, put(out, to_bf16_pair(f(a), f(b))))
OCTAVO_WORD(store_bf16, store_i(out, zero_i()); store_bf16(out, f(a)))
OCTAVO_WORD(exp2_poly, put(out, exp2_poly(f(a))))
OCTAVO_WORD(exp2_below_127, put(out, exp2_below_127(f(a))))
OCTAVO_WORD(tanh_poly, put(out, tanh_poly(f(a))))
OCTAVO_WORD(first_lanes, put_bits(out, first_lanes(scalar(a))))
OCTAVO_WORD(lt, put_bits(out, lt(f(a), f(b))))
OCTAVO_WORD(is_nan, put_bits(out, is_nan(f(a))))
OCTAVO_WORD(and_m, put_bits(out, and_m(m(a), m(b))))
OCTAVO_WORD(mask_byte_add16, put(out, mask_byte_add16(i(a), scalar64(b))))
OCTAVO_WORD(look_up, put(out, look_up(b, i(a))))
OCTAVO_WORD(swap_lanes_1, put(out, swap_lanes<1>(f(a))))
OCTAVO_WORD(swap_lanes_2, put(out, swap_lanes<2>(f(a))))
OCTAVO_WORD(swap_lanes_4, put(out, swap_lanes<4>(f(a))))
OCTAVO_WORD(swap_lanes_8, put(out, swap_lanes<8>(f(a))))
OCTAVO_WORD(twice_each, put(out, twice_each((const float*)a)))
OCTAVO_WORD(reduce_add, put(out, reduce_add(f(a))))
OCTAVO_WORD(reduce_max, put(out, reduce_max(f(a))))

#define OCTAVO_ENTRY(name) {#name, probe_##name}
static const ProbeWord kWords[] = {
    OCTAVO_ENTRY(zero_f),
    OCTAVO_ENTRY(set1_f),
    OCTAVO_ENTRY(load_f_mask),
    OCTAVO_ENTRY(store_f_mask),
    OCTAVO_ENTRY(add),
    OCTAVO_ENTRY(sub),
    OCTAVO_ENTRY(mul),
    OCTAVO_ENTRY(div),
    OCTAVO_ENTRY(max),
    OCTAVO_ENTRY(min),
    OCTAVO_ENTRY(fma),
    OCTAVO_ENTRY(select),
    OCTAVO_ENTRY(round_even),
    OCTAVO_ENTRY(scale2),
    OCTAVO_ENTRY(scale2_from),
    OCTAVO_ENTRY(zero_i),
    OCTAVO_ENTRY(set1_i),
    OCTAVO_ENTRY(add_i),
    OCTAVO_ENTRY(sub_i),
    OCTAVO_ENTRY(and_i),
    OCTAVO_ENTRY(or_i),
    OCTAVO_ENTRY(shift_left_4),
    OCTAVO_ENTRY(shift_left_16),
    OCTAVO_ENTRY(shift_right_u_4),
    OCTAVO_ENTRY(shift_right_u_16),
    OCTAVO_ENTRY(shift_right_s_7),
    OCTAVO_ENTRY(shift_right16_4),
    OCTAVO_ENTRY(to_float),
    OCTAVO_ENTRY(to_int),
    OCTAVO_ENTRY(as_float),
    OCTAVO_ENTRY(as_int),
    OCTAVO_ENTRY(dot_u8s8),
    OCTAVO_ENTRY(dot_u7s8),
    OCTAVO_ENTRY(dot_bf16),
    OCTAVO_ENTRY(load_f16),
    OCTAVO_ENTRY(load_bf16),
    OCTAVO_ENTRY(to_bf16_pair),
    OCTAVO_ENTRY(store_bf16),
    OCTAVO_ENTRY(exp2_poly),
    OCTAVO_ENTRY(exp2_below_127),
    OCTAVO_ENTRY(tanh_poly),
    OCTAVO_ENTRY(first_lanes),
    OCTAVO_ENTRY(lt),
    OCTAVO_ENTRY(is_nan),
    OCTAVO_ENTRY(and_m),
    OCTAVO_ENTRY(mask_byte_add16),
    OCTAVO_ENTRY(look_up),
    OCTAVO_ENTRY(swap_lanes_1),
    OCTAVO_ENTRY(swap_lanes_2),
    OCTAVO_ENTRY(swap_lanes_4),
    OCTAVO_ENTRY(swap_lanes_8),
    OCTAVO_ENTRY(twice_each),
    OCTAVO_ENTRY(reduce_add),
    OCTAVO_ENTRY(reduce_max),
};
static const SimdProbe kProbe = {kWords, sizeof kWords / sizeof kWords[0]};

const SimdProbe* simd_probe() { return &kProbe; }

}  // namespace octavo::OCTAVO_ISA
