// matmul_probe.cpp: loops that show what this machine can do at best: dots, fma, reading memory.
//
// Benchmarks divide by these figures. kChains independent sums hide the latency of a dot without
// leaving registers; their weights are other sums, or the compiler would take the products out of
// the loop; and no two lanes are equal, or it would compute one half of them and copy it.
#include "kernels/matmul_parts.h"
#include "kernels/simd_bytes.h"

namespace octavo::OCTAVO_ISA {

#if OCTAVO_LEVEL >= OCTAVO_LEVEL_avx512
constexpr int kChains = 16;
#elif OCTAVO_LEVEL >= OCTAVO_LEVEL_avx2
constexpr int kChains = 6;  // of 16 lanes: twelve registers of 8; ten hide two dots of 5 cycles
#else
constexpr int kChains = 4;  // all sixteen registers of 4 lanes
#endif
constexpr int kRounds = kSpinDots / kChains;
static_assert(kSpinDots == kChains * kRounds);

alignas(64) static constexpr int32_t kLanes[16] = {0, 1, 2,  3,  4,  5,  6,  7,
                                                   8, 9, 10, 11, 12, 13, 14, 15};

// The least that a product of bytes and its sum take: pairs in 16 bits, where there is no dot.
OCTAVO_INLINE i32x16 least_dot(i32x16 acc, i32x16 w, i32x16 a) {
  return kSignedDots ? add_pairs(acc, w, a) : dot_u8s8(acc, w, a);
}

__attribute__((noinline)) void spin_dot(int64_t iterations, int64_t* sink) {
  const i32x16 a = set1_i((int32_t)*sink | 0x01010101);
  i32x16 acc[kChains];
#pragma GCC unroll 16
  for (int i = 0; i < kChains; ++i) acc[i] = add_i(add_i(a, load_i(kLanes)), set1_i(i));
#pragma GCC unroll 1
  for (int64_t n = 0; n < iterations; ++n) {
#pragma GCC unroll 32
    for (int round = 0; round < kRounds; ++round) {
#pragma GCC unroll 16
      for (int i = 0; i < kChains; ++i) acc[i] = least_dot(acc[i], acc[(i + 1) % kChains], a);
    }
  }
#pragma GCC unroll 16
  for (int i = 1; i < kChains; ++i) acc[0] = add_i(acc[0], acc[i]);
  *sink += reduce_add(to_float(acc[0])) > 0.0f;
}

// Sums of floats that stay what they are: the other factor is 0, which only the caller knows.
template <class Step> OCTAVO_INLINE void spin_float(int64_t iterations, int64_t* sink, Step step) {
  f32x16 acc[kChains];
#pragma GCC unroll 16
  for (int i = 0; i < kChains; ++i) acc[i] = add(to_float(load_i(kLanes)), set1_f((float)(i + 1)));
#pragma GCC unroll 1
  for (int64_t n = 0; n < iterations; ++n) {
#pragma GCC unroll 32
    for (int round = 0; round < kRounds; ++round) {
#pragma GCC unroll 16
      for (int i = 0; i < kChains; ++i) acc[i] = step(acc[i], acc[(i + 1) % kChains]);
    }
  }
#pragma GCC unroll 16
  for (int i = 1; i < kChains; ++i) acc[0] = add(acc[0], acc[i]);
  *sink += reduce_add(acc[0]) < 0.0f;
}

__attribute__((noinline)) void spin_fma(int64_t iterations, int64_t* sink) {
  const f32x16 zero = set1_f((float)(*sink >> 40));
  spin_float(iterations, sink, [zero](f32x16 acc, f32x16 other) { return fma(other, zero, acc); });
}

__attribute__((noinline)) void spin_bf16(int64_t iterations, int64_t* sink) {
  const i32x16 zero = set1_i((int32_t)(*sink >> 40));
  spin_float(iterations, sink,
             [zero](f32x16 acc, f32x16 other) { return dot_bf16(acc, as_int(other), zero); });
}

__attribute__((noinline)) void read_sum(const void* data, int64_t bytes, int64_t* sink) {
  const uint8_t* p = (const uint8_t*)data;
  i32x16 acc[4] = {zero_i(), zero_i(), zero_i(), zero_i()};
  for (int64_t at = 0; at < bytes; at += 512) {
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) acc[i & 3] = add_i(acc[i & 3], load_i(p + at + i * 64));
  }
  alignas(64) int32_t lanes[16];
  store_i(lanes, add_i(add_i(acc[0], acc[1]), add_i(acc[2], acc[3])));
  for (int i = 0; i < 16; ++i) *sink += lanes[i];
}

}  // namespace octavo::OCTAVO_ISA
