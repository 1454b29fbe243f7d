// simd_base.h: the words of simd.h in GCC/clang vector extensions, for any 64-bit machine (x86-64
// SSE2, aarch64 NEON).
//
// Sixteen lanes are four vectors of 16 bytes, the register of both: gcc keeps wider generic vectors
// in memory. fma rounds twice on every machine, so this level is one arithmetic class of its own,
// on both architectures. It calls nothing from libm: rounding, fp16 and masks are done on the bits.
// Little-endian, as every machine we run on.
#pragma once

namespace octavo::OCTAVO_ISA {

typedef float f32x4 __attribute__((vector_size(16)));
typedef int32_t i32x4 __attribute__((vector_size(16)));
typedef uint32_t u32x4 __attribute__((vector_size(16)));
typedef int16_t i16x8 __attribute__((vector_size(16)));
typedef uint16_t u16x8 __attribute__((vector_size(16)));
typedef uint16_t u16x4 __attribute__((vector_size(8)));
typedef uint8_t u8x16 __attribute__((vector_size(16)));

struct f32x16 {
  f32x4 a, b, c, d;
};
struct i32x16 {
  i32x4 a, b, c, d;
};
struct mask16 {
  i32x4 a, b, c, d;
};  // lanes all ones or all zero

#define OCTAVO_MAP1(f, x) {f((x).a), f((x).b), f((x).c), f((x).d)}
#define OCTAVO_MAP2(f, x, y) {f((x).a, (y).a), f((x).b, (y).b), f((x).c, (y).c), f((x).d, (y).d)}
#define OCTAVO_MAP3(f, x, y, z) \
  {f((x).a, (y).a, (z).a), f((x).b, (y).b, (z).b), f((x).c, (y).c, (z).c), f((x).d, (y).d, (z).d)}

// ---- one quarter: 4 lanes
OCTAVO_INLINE f32x4 splat4(float v) { return f32x4{v, v, v, v}; }
OCTAVO_INLINE i32x4 splat4_i(int32_t v) { return i32x4{v, v, v, v}; }
OCTAVO_INLINE f32x4 float4(i32x4 a) { return __builtin_convertvector(a, f32x4); }
OCTAVO_INLINE f32x4 bits_f(i32x4 a) { return (f32x4)a; }
OCTAVO_INLINE i32x4 bits_i(f32x4 a) { return (i32x4)a; }
OCTAVO_INLINE f32x4 select4(i32x4 m, f32x4 a, f32x4 b) {
  return (f32x4)((m & (i32x4)a) | (~m & (i32x4)b));
}
OCTAVO_INLINE f32x4 add4(f32x4 a, f32x4 b) { return a + b; }
OCTAVO_INLINE f32x4 sub4(f32x4 a, f32x4 b) { return a - b; }
OCTAVO_INLINE f32x4 mul4(f32x4 a, f32x4 b) { return a * b; }
OCTAVO_INLINE f32x4 div4(f32x4 a, f32x4 b) { return a / b; }
OCTAVO_INLINE i32x4 lt4(f32x4 a, f32x4 b) { return (i32x4)(a < b); }
OCTAVO_INLINE i32x4 nan4(f32x4 a) { return (i32x4)(a != a); }
OCTAVO_INLINE f32x4 max4(f32x4 a, f32x4 b) { return select4(lt4(b, a), a, b); }
OCTAVO_INLINE f32x4 min4(f32x4 a, f32x4 b) { return select4(lt4(a, b), a, b); }
OCTAVO_INLINE i32x4 add4_i(i32x4 a, i32x4 b) { return (i32x4)((u32x4)a + (u32x4)b); }
OCTAVO_INLINE i32x4 sub4_i(i32x4 a, i32x4 b) { return (i32x4)((u32x4)a - (u32x4)b); }
OCTAVO_INLINE i32x4 and4_i(i32x4 a, i32x4 b) { return a & b; }
OCTAVO_INLINE i32x4 or4_i(i32x4 a, i32x4 b) { return a | b; }
template <int N> OCTAVO_INLINE i32x4 shift_left4(i32x4 a) { return (i32x4)((u32x4)a << N); }
template <int N> OCTAVO_INLINE i32x4 shift_right4_u(i32x4 a) { return (i32x4)((u32x4)a >> N); }
template <int N> OCTAVO_INLINE i32x4 shift_right4_s(i32x4 a) { return a >> N; }
template <int N> OCTAVO_INLINE i32x4 shift_right4_u16(i32x4 a) { return (i32x4)((u16x8)a >> N); }

// Adding and taking away 2^23 with the value's own sign rounds to an integer; from 2^23 on every
// float is one.
OCTAVO_INLINE f32x4 round4(f32x4 a) {
  const i32x4 sign = bits_i(a) & splat4_i(INT32_MIN);
  const f32x4 big = bits_f(bits_i(splat4(8388608.0f)) | sign);
  const f32x4 magnitude = bits_f(bits_i(a) & splat4_i(INT32_MAX));
  const f32x4 rounded = bits_f(bits_i((a + big) - big) | sign);
  return select4((i32x4)(magnitude >= splat4(8388608.0f)), a, rounded);
}
OCTAVO_INLINE i32x4 int4(f32x4 a) {
  const i32x4 fits = (i32x4)(a < splat4(2147483648.0f)) & (i32x4)(a >= splat4(-2147483648.0f));
  const i32x4 whole = __builtin_convertvector(select4(fits, round4(a), splat4(0.0f)), i32x4);
  return (fits & whole) | (~fits & splat4_i(INT32_MIN));
}

// A product u8 * s8 fits 16 bits; each 32-bit lane then adds the signed halves of its two products.
OCTAVO_INLINE i32x4 dot4(i32x4 acc, i32x4 w, i32x4 a) {
  const i16x8 w_even = (i16x8)((u16x8)w & (uint16_t)0x00ff), w_odd = (i16x8)((u16x8)w >> 8);
  const i16x8 a_even = (i16x8)((u16x8)a << 8) >> 8, a_odd = (i16x8)a >> 8;
  const i32x4 even = (i32x4)(w_even * a_even), odd = (i32x4)(w_odd * a_odd);
  const i32x4 low = add4_i(shift_left4<16>(even) >> 16, shift_left4<16>(odd) >> 16);
  return add4_i(acc, add4_i(low, add4_i(even >> 16, odd >> 16)));
}

// The fp16 exponent and fraction land in the fields of a float 2^112 too small; one exact product
// mends both normals and denormals. Infinity and NaN keep their fraction under a float's largest
// exponent.
OCTAVO_INLINE f32x4 half4(u16x4 h) {
  const i32x4 wide = (i32x4) __builtin_convertvector(h, u32x4);
  const i32x4 sign = shift_left4<16>(wide & splat4_i(0x8000)),
              body = shift_left4<13>(wide & splat4_i(0x7fff));
  const i32x4 finite = bits_i(bits_f(body) * splat4(5192296858534827628530496329220096.0f));
  const i32x4 special = (i32x4)(body >= splat4_i(0x7c00 << 13));
  return bits_f(sign | (special & (body | splat4_i(0x7f800000))) | (~special & finite));
}
OCTAVO_INLINE f32x4 bfloat4(u16x4 h) {
  return bits_f(shift_left4<16>((i32x4) __builtin_convertvector(h, u32x4)));
}

OCTAVO_INLINE i32x4 bfloat_bits4(f32x4 a) {
  const i32x4 bits = bits_i(a), odd = shift_right4_u<16>(bits) & splat4_i(1);
  const i32x4 rounded = shift_right4_u<16>(add4_i(bits, add4_i(odd, splat4_i(0x7fff))));
  const i32x4 nan = nan4(a);
  return (nan & splat4_i(0x7fc0)) | (~nan & rounded);
}

// Adds 16 to byte b where bit b of the 16 bits m is set.
OCTAVO_INLINE i32x4 byte_add4(i32x4 a, uint32_t m) {
  const uint8_t low = (uint8_t)m, high = (uint8_t)(m >> 8);
  const u8x16 bit = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
  const u8x16 spread = {low,  low,  low,  low,  low,  low,  low,  low,
                        high, high, high, high, high, high, high, high};
  return (i32x4)((u8x16)a + ((u8x16)((spread & bit) == bit) & (uint8_t)16));
}

template <typename Vector> OCTAVO_INLINE Vector read_as(const void* p) {
  Vector v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
template <typename Vector> OCTAVO_INLINE void write_as(void* p, Vector v) {
  __builtin_memcpy(p, &v, sizeof v);
}

// ---- the words
OCTAVO_INLINE f32x16 set1_f(float v) { return {splat4(v), splat4(v), splat4(v), splat4(v)}; }
OCTAVO_INLINE f32x16 zero_f() { return set1_f(0.0f); }
OCTAVO_INLINE f32x16 load_f(const float* p) { return read_as<f32x16>(p); }
OCTAVO_INLINE void store_f(float* p, f32x16 v) { write_as(p, v); }
OCTAVO_INLINE f32x16 add(f32x16 a, f32x16 b) { return OCTAVO_MAP2(add4, a, b); }
OCTAVO_INLINE f32x16 sub(f32x16 a, f32x16 b) { return OCTAVO_MAP2(sub4, a, b); }
OCTAVO_INLINE f32x16 mul(f32x16 a, f32x16 b) { return OCTAVO_MAP2(mul4, a, b); }
OCTAVO_INLINE f32x16 div(f32x16 a, f32x16 b) { return OCTAVO_MAP2(div4, a, b); }
OCTAVO_INLINE f32x16 max(f32x16 a, f32x16 b) { return OCTAVO_MAP2(max4, a, b); }
OCTAVO_INLINE f32x16 min(f32x16 a, f32x16 b) { return OCTAVO_MAP2(min4, a, b); }
OCTAVO_INLINE f32x16 fma(f32x16 a, f32x16 b, f32x16 c) { return add(mul(a, b), c); }
OCTAVO_INLINE f32x16 select(mask16 m, f32x16 a, f32x16 b) { return OCTAVO_MAP3(select4, m, a, b); }
OCTAVO_INLINE f32x16 round_even(f32x16 a) { return OCTAVO_MAP1(round4, a); }

OCTAVO_INLINE i32x16 set1_i(int32_t v) {
  return {splat4_i(v), splat4_i(v), splat4_i(v), splat4_i(v)};
}
OCTAVO_INLINE i32x16 zero_i() { return set1_i(0); }
OCTAVO_INLINE i32x16 load_i(const void* p) { return read_as<i32x16>(p); }
OCTAVO_INLINE void store_i(void* p, i32x16 v) { write_as(p, v); }
OCTAVO_INLINE i32x16 add_i(i32x16 a, i32x16 b) { return OCTAVO_MAP2(add4_i, a, b); }
OCTAVO_INLINE i32x16 sub_i(i32x16 a, i32x16 b) { return OCTAVO_MAP2(sub4_i, a, b); }
OCTAVO_INLINE i32x16 and_i(i32x16 a, i32x16 b) { return OCTAVO_MAP2(and4_i, a, b); }
OCTAVO_INLINE i32x16 or_i(i32x16 a, i32x16 b) { return OCTAVO_MAP2(or4_i, a, b); }
template <int N> OCTAVO_INLINE i32x16 shift_left(i32x16 a) {
  return OCTAVO_MAP1(shift_left4<N>, a);
}
template <int N> OCTAVO_INLINE i32x16 shift_right_u(i32x16 a) {
  return OCTAVO_MAP1(shift_right4_u<N>, a);
}
template <int N> OCTAVO_INLINE i32x16 shift_right_s(i32x16 a) {
  return OCTAVO_MAP1(shift_right4_s<N>, a);
}
template <int N> OCTAVO_INLINE i32x16 shift_right16(i32x16 a) {
  return OCTAVO_MAP1(shift_right4_u16<N>, a);
}
OCTAVO_INLINE f32x16 to_float(i32x16 a) { return OCTAVO_MAP1(float4, a); }
OCTAVO_INLINE i32x16 to_int(f32x16 a) { return OCTAVO_MAP1(int4, a); }
OCTAVO_INLINE f32x16 as_float(i32x16 a) { return OCTAVO_MAP1(bits_f, a); }
OCTAVO_INLINE i32x16 as_int(f32x16 a) { return OCTAVO_MAP1(bits_i, a); }
OCTAVO_INLINE f32x16 scale2(f32x16 p, f32x16 n) {
  return mul(p, as_float(shift_left<23>(add_i(to_int(n), set1_i(127)))));
}

OCTAVO_INLINE i32x16 dot_u8s8(i32x16 acc, i32x16 w, i32x16 a) {
  return OCTAVO_MAP3(dot4, acc, w, a);
}
OCTAVO_INLINE i32x16 dot_u7s8(i32x16 acc, i32x16 w, i32x16 a) { return dot_u8s8(acc, w, a); }
OCTAVO_INLINE f32x16 dot_bf16(f32x16 acc, i32x16 a, i32x16 b) {
  const i32x16 high = set1_i((int32_t)0xffff0000u);
  acc = fma(as_float(and_i(a, high)), as_float(and_i(b, high)), acc);
  return fma(as_float(shift_left<16>(a)), as_float(shift_left<16>(b)), acc);
}

struct u16_quarters {
  u16x4 a, b, c, d;
};
OCTAVO_INLINE f32x16 load_f16(const void* p) {
  const u16_quarters h = read_as<u16_quarters>(p);
  return OCTAVO_MAP1(half4, h);
}
OCTAVO_INLINE f32x16 load_bf16(const void* p) {
  const u16_quarters h = read_as<u16_quarters>(p);
  return OCTAVO_MAP1(bfloat4, h);
}
OCTAVO_INLINE i32x16 to_bf16_bits(f32x16 a) { return OCTAVO_MAP1(bfloat_bits4, a); }
OCTAVO_INLINE i32x16 to_bf16_pair(f32x16 lo, f32x16 hi) {
  return or_i(to_bf16_bits(lo), shift_left<16>(to_bf16_bits(hi)));
}

OCTAVO_INLINE u16x4 narrow4(i32x4 a) { return __builtin_convertvector((u32x4)a, u16x4); }
OCTAVO_INLINE void store_bf16(void* p, f32x16 v) {
  const i32x16 bits = to_bf16_bits(v);
  write_as(p, u16_quarters{narrow4(bits.a), narrow4(bits.b), narrow4(bits.c), narrow4(bits.d)});
}

OCTAVO_INLINE mask16 lt(f32x16 a, f32x16 b) { return OCTAVO_MAP2(lt4, a, b); }
OCTAVO_INLINE f32x16 scale2_from(f32x16 low, f32x16 x, f32x16 p, f32x16 n) {
  return select(lt(x, low), zero_f(), scale2(p, n));
}
OCTAVO_INLINE mask16 is_nan(f32x16 a) { return OCTAVO_MAP1(nan4, a); }
OCTAVO_INLINE mask16 and_m(mask16 a, mask16 b) { return OCTAVO_MAP2(and4_i, a, b); }
OCTAVO_INLINE mask16 first_lanes(int n) {
  const i32x4 lane = {0, 1, 2, 3}, count = splat4_i(n);
  return {(i32x4)(lane < count), (i32x4)(lane + 4 < count), (i32x4)(lane + 8 < count),
          (i32x4)(lane + 12 < count)};
}
OCTAVO_INLINE uint32_t lane_bits4(i32x4 m) {
  const i32x4 bit = m & i32x4{1, 2, 4, 8};
  return (uint32_t)(bit[0] | bit[1] | bit[2] | bit[3]);
}
OCTAVO_INLINE uint32_t lane_bits(mask16 m) {
  return lane_bits4(m.a) | lane_bits4(m.b) << 4 | lane_bits4(m.c) << 8 | lane_bits4(m.d) << 12;
}
OCTAVO_INLINE i32x4 lanes_of4(uint32_t bits) {
  const i32x4 bit = {1, 2, 4, 8};
  return (i32x4)((splat4_i((int32_t)bits) & bit) == bit);
}
OCTAVO_INLINE mask16 lanes_of(uint32_t bits) {
  return {lanes_of4(bits), lanes_of4(bits >> 4), lanes_of4(bits >> 8), lanes_of4(bits >> 12)};
}
OCTAVO_INLINE i32x16 mask_byte_add16(i32x16 a, uint64_t m) {
  return {byte_add4(a.a, (uint32_t)m), byte_add4(a.b, (uint32_t)(m >> 16)),
          byte_add4(a.c, (uint32_t)(m >> 32)), byte_add4(a.d, (uint32_t)(m >> 48))};
}

// Lane by lane: a masked-off lane may lie on a page that cannot be touched.
OCTAVO_INLINE f32x16 load_f_mask(const float* p, mask16 m) {
  float lanes[16] = {};
  const uint32_t bits = lane_bits(m);
  for (int i = 0; i < 16; i++) {
    if (bits >> i & 1) lanes[i] = p[i];
  }
  return load_f(lanes);
}
OCTAVO_INLINE void store_f_mask(float* p, mask16 m, f32x16 v) {
  float lanes[16];
  store_f(lanes, v);
  const uint32_t bits = lane_bits(m);
  for (int i = 0; i < 16; i++) {
    if (bits >> i & 1) p[i] = lanes[i];
  }
}

OCTAVO_INLINE i32x16 look_up(const uint8_t* table, i32x16 index) {
  uint8_t bytes[64];
  store_i(bytes, index);
  for (int i = 0; i < 64; i++) bytes[i] = table[bytes[i]];
  return load_i(bytes);
}

template <int K> OCTAVO_INLINE f32x4 swap4(f32x4 a) {
  if constexpr (K == 1) return __builtin_shufflevector(a, a, 1, 0, 3, 2);
  else return __builtin_shufflevector(a, a, 2, 3, 0, 1);
}
template <int K> OCTAVO_INLINE f32x16 swap_lanes(f32x16 a) {
  if constexpr (K == 8) return {a.c, a.d, a.a, a.b};
  else if constexpr (K == 4) return {a.b, a.a, a.d, a.c};
  else return OCTAVO_MAP1(swap4<K>, a);
}
OCTAVO_INLINE f32x16 twice_each(const float* p) {
  return {f32x4{p[0], p[0], p[1], p[1]}, f32x4{p[2], p[2], p[3], p[3]},
          f32x4{p[4], p[4], p[5], p[5]}, f32x4{p[6], p[6], p[7], p[7]}};
}

OCTAVO_INLINE float reduce_add(f32x16 v) {
  const f32x4 b = (v.a + v.c) + (v.b + v.d);
  return (b[0] + b[2]) + (b[1] + b[3]);
}
OCTAVO_INLINE float reduce_max(f32x16 v) {
  const f32x4 b = max4(max4(v.a, v.c), max4(v.b, v.d));
  const f32x4 c = max4(b, f32x4{b[2], b[3], b[2], b[3]});
  return max4(c, f32x4{c[1], c[1], c[1], c[1]})[0];
}

#undef OCTAVO_MAP1
#undef OCTAVO_MAP2
#undef OCTAVO_MAP3

}  // namespace octavo::OCTAVO_ISA
