// words_plain.h: the words of words.h in plain code: what the instructions do, in their order.
//
// What the processor answers with a fault (a shape that is not one, operands that do not fit each
// other) ends the process here, too.
#pragma once
#include <immintrin.h>

namespace octavo::OCTAVO_ISA {

class Tiles {
 public:
  explicit Tiles(const TileShapes& shapes) : shapes_(shapes), rows_{} {
    for (int i = 0; i < kTiles; ++i) {
      const int rows = shapes.rows[i], bytes = shapes.bytes[i];
      expect(rows <= kTileRows && bytes <= kTileBytes && (rows == 0) == (bytes == 0));
    }
  }
  ~Tiles() {}  // not trivial, as that of the instructions: an object that is only there to be there
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;

  template <int T> void zero() {
    expect_shaped(T);
    __builtin_memset(rows_[T], 0, sizeof rows_[T]);
  }
  template <int T> void load(const void* p, int64_t stride) {
    zero<T>();
    for (int i = 0; i < shapes_.rows[T]; ++i)
      __builtin_memcpy(rows_[T][i], (const uint8_t*)p + i * stride, shapes_.bytes[T]);
  }
  template <int T> void store(void* p, int64_t stride) {
    expect_shaped(T);
    for (int i = 0; i < shapes_.rows[T]; ++i)
      __builtin_memcpy((uint8_t*)p + i * stride, rows_[T][i], shapes_.bytes[T]);
  }

  template <int C, int A, int B> void dot_s8() {
    expect_fit(C, A, B);
    for (int m = 0; m < shapes_.rows[C]; ++m) {
      i32x16 sum = load_i(rows_[C][m]);
      for (int k = 0; k < shapes_.bytes[A] / 4; ++k) sum = add_s8(sum, step(A, m, k), B, k);
      put(C, m, sum);
    }
  }
  template <int C, int A, int B> void dot_s8u8() {
    expect_fit(C, A, B);
    for (int m = 0; m < shapes_.rows[C]; ++m) {
      i32x16 sum = load_i(rows_[C][m]);
      for (int k = 0; k < shapes_.bytes[A] / 4; ++k)
        sum = dot_u8s8(sum, load_i(rows_[B][k]), step(A, m, k));
      put(C, m, sum);
    }
  }
  template <int C, int A, int B> void dot_bf16() {
    expect_fit(C, A, B);
    const uint32_t before = _mm_getcsr();
    set_csr(0x9fc0);  // denormals are zeros, read and made; nearest even; no trap
    add_bf16(C, A, B);
    set_csr(before);
  }

 private:
  static void expect(bool holds) {
    if (!holds) __builtin_trap();
  }
  void expect_shaped(int tile) const { expect(shapes_.rows[tile] != 0); }
  void expect_fit(int c, int a, int b) const {
    expect_shaped(c);
    expect_shaped(a);
    expect_shaped(b);
    expect(c != a && c != b && a != b);
    expect(shapes_.rows[c] == shapes_.rows[a] && shapes_.bytes[c] == shapes_.bytes[b] &&
           shapes_.bytes[a] == 4 * shapes_.rows[b]);
    expect(shapes_.bytes[a] % 4 == 0 && shapes_.bytes[c] % 4 == 0);
  }

  i32x16 step(int tile, int m, int k) const {  // four bytes, in every lane
    int32_t bytes;
    __builtin_memcpy(&bytes, rows_[tile][m] + 4 * k, 4);
    return set1_i(bytes);
  }
  void put(int tile, int m, i32x16 row) {  // what lies beyond the tile's columns stays 0
    alignas(64) uint8_t bytes[kTileBytes];
    store_i(bytes, row);
    __builtin_memcpy(rows_[tile][m], bytes, shapes_.bytes[tile]);
  }

  // vpdpbusd wants one side unsigned: b + 128, and 128 times the other side off again.
  i32x16 add_s8(i32x16 sum, i32x16 a, int b, int k) const {
    const i32x16 raise = set1_i((int32_t)0x80808080u);
    const i32x16 raised = _mm512_xor_si512(load_i(rows_[b][k]), raise);
    return sub_i(dot_u8s8(sum, raised, a), dot_u8s8(zero_i(), raise, a));
  }

  static void set_csr(uint32_t csr) {
    __asm__ volatile("" ::: "memory");
    _mm_setcsr(csr);
    __asm__ volatile("" ::: "memory");
  }
  // A function of its own: the compiler knows nothing of the control word, and would move sums past
  // its change if they were not in memory.
  __attribute__((noinline)) void add_bf16(int c, int a, int b) {
    const i32x16 high = set1_i((int32_t)0xffff0000u);
    for (int m = 0; m < shapes_.rows[c]; ++m) {
      f32x16 even = zero_f(), odd = zero_f();
      for (int k = 0; k < shapes_.bytes[a] / 4; ++k) {
        const i32x16 x = step(a, m, k), y = load_i(rows_[b][k]);
        even = fma(as_float(shift_left<16>(x)), as_float(shift_left<16>(y)), even);
        odd = fma(as_float(and_i(x, high)), as_float(and_i(y, high)), odd);
      }
      put(c, m, as_int(add(as_float(load_i(rows_[c][m])), add(even, odd))));
    }
  }

  TileShapes shapes_;
  alignas(64) uint8_t rows_[kTiles][kTileRows][kTileBytes];
};

}  // namespace octavo::OCTAVO_ISA
