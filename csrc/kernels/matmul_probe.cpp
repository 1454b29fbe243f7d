// matmul_probe.cpp: loops that show what this machine can do at best: integer dots, bf16 dots, reading memory.
//
// Benchmarks divide by these figures. Sixteen independent chains hide every latency.
#include "matmul_parts.h"

namespace octavo::OCTAVO_ISA {

__attribute__((noinline)) void spin_dot(int64_t iterations, int64_t* sink) {
  const i32x16 w = set1_i((int32_t)*sink | 0x01010101), a = set1_i((int32_t)(*sink >> 8) | 0x01010101);
  i32x16 acc[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) acc[i] = set1_i(i);
  for (int64_t n = 0; n < iterations; ++n) {
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) acc[i] = dot_u8s8(acc[i], w, a);
  }
#pragma GCC unroll 16
  for (int i = 1; i < 16; ++i) acc[0] = add_i(acc[0], acc[i]);
  *sink += (int64_t)reduce_add(to_float(acc[0]));
}

__attribute__((noinline)) void spin_bf16(int64_t iterations, int64_t* sink) {
  const i32x16 w = set1_i((int32_t)*sink & 0x3f803f80), a = set1_i((int32_t)(*sink >> 8) & 0x3f803f80);
  f32x16 acc[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) acc[i] = set1_f((float)i);
  for (int64_t n = 0; n < iterations; ++n) {
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) acc[i] = dot_bf16(acc[i], w, a);
  }
#pragma GCC unroll 16
  for (int i = 1; i < 16; ++i) acc[0] = add(acc[0], acc[i]);
  *sink += reduce_add(acc[0]) > 0.0f;
}

__attribute__((noinline)) void read_sum(const void* data, int64_t bytes, int64_t* sink) {
  const uint8_t* p = (const uint8_t*)data;
  i32x16 acc[8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) acc[i] = zero_i();
  for (int64_t at = 0; at < bytes; at += 512) {
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) acc[i] = add_i(acc[i], load_i(p + at + i * 64));
  }
#pragma GCC unroll 8
  for (int i = 1; i < 8; ++i) acc[0] = add_i(acc[0], acc[i]);
  alignas(64) int32_t lanes[16];
  store_i(lanes, acc[0]);
  for (int i = 0; i < 16; ++i) *sink += lanes[i];
}

}  // namespace octavo::OCTAVO_ISA
