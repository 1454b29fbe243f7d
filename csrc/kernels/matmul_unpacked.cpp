// matmul_unpacked.cpp: packed integer weights as bytes and float32 scales, and their product with
// int8 activations: the sums of matmul_integer.cpp, bit for bit.
//
// Panels that several tiles of rows meet are unpacked once for all of them: a port that shifts,
// masks or widens does no dot meanwhile (Intel has two for all of it), and every format becomes one
// of the kinds of matmul_kinds.h.
#include "kernels/matmul_kinds.h"
#include "kernels/matmul_sums.h"

#if OCTAVO_UNPACKS

namespace octavo::OCTAVO_ISA {

template <int32_t kFormat>
static void unpack_panel(const uint8_t* p, int32_t group0, int32_t group1, uint8_t* out) {
  using G = Group<kFormat>;
  constexpr int32_t kGroups = G::kLayout.groups;
  for (int32_t g = group0; g < group1; ++g, out += KindOf<kFormat>::kBytes) {
    const uint8_t* supertile = p + (int64_t)(g / kGroups) * G::kLayout.bytes;
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j)
      store_i(out + j * 64, KindOf<kFormat>::template step<G>(supertile, g % kGroups, j));
    KindOf<kFormat>::template unpack_scales<G>(supertile, g % kGroups, (float*)(out + kQuantBytes));
  }
}

template <int R, int M, class K, Part kPart>
OCTAVO_INLINE void add_part(const uint8_t* p, int64_t panel_stride, const int32_t* a,
                            f32x16 (&acc)[R][M]) {
  constexpr int kFirst = kPart == kHighHalf ? 4 : 0, kEnd = kPart == kLowHalf ? 4 : 8;
  i32x16 dot[R][M];
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m) {
    const i32x16 start = K::kZero ? start_of_128(kPart, a, M, m) : zero_i();
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) dot[r][m] = start;
  }
#pragma GCC unroll 8
  for (int j = kFirst; j < kEnd; ++j) {
    i32x16 w[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) w[r] = load_i(p + r * panel_stride + j * 64);
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      const i32x16 x = set1_i(a[j * M + m]);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) dot[r][m] = dot_u8s8(dot[r][m], w[r], x);
    }
  }
  const uint8_t* scales = p + kQuantBytes + (kPart == kHighHalf ? 64 : 0);
  f32x16 ws[R];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) ws[r] = load_f((const float*)(scales + r * panel_stride));
  add_scaled<R, M>(dot, ws, a, M, acc);
  if constexpr (K::kMin) {
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const f32x16 min = load_f((const float*)(scales + r * panel_stride + K::kScales * 64));
#pragma GCC unroll 8
      for (int m = 0; m < M; ++m) acc[r][m] = fma(min, am_of(kPart, a, M, m), acc[r][m]);
    }
  }
}

// Loads stay on their side: those of a second half would come while the first needs every register.
OCTAVO_INLINE void keep_order() { __asm__ volatile("" ::: "memory"); }

// Panels are kUnpackedGroups apart, whatever their number of groups.
template <int R, int M, class K>
__attribute__((noinline)) static void add_tile(const uint8_t* p, int32_t groups, const int32_t* a,
                                               bool first, const uint8_t* ahead, int lines,
                                               float* sums) {
  constexpr int64_t kPanel = kUnpackedGroups * K::kBytes;
  f32x16 acc[R][M];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) acc[r][m] = first ? zero_f() : load_f(sums + (r * M + m) * 16);
  }
#pragma GCC unroll 1
  for (int32_t g = 0; g < groups; ++g, p += K::kBytes, a += kGroupRows * M) {
#pragma GCC unroll 1
    for (int i = 0; i < lines; ++i, ahead += 64) __builtin_prefetch(ahead, 0, 2);
    if constexpr (K::kHalves) {
      add_part<R, M, K, kLowHalf>(p, kPanel, a, acc);
      keep_order();
      add_part<R, M, K, kHighHalf>(p, kPanel, a, acc);
    } else {
      add_part<R, M, K, kWhole>(p, kPanel, a, acc);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) store_f(sums + (r * M + m) * 16, acc[r][m]);
  }
}

struct Functions {  // of a format
  int64_t group_bytes;
  void (*unpack)(const uint8_t* p, int32_t group0, int32_t group1, uint8_t* out);
  void (*add[2][4])(const uint8_t* p, int32_t groups, const int32_t* a, bool first,
                    const uint8_t* ahead, int lines, float* sums);  // [unit - 1][tokens - 3]
};
template <int32_t kFormat> static constexpr Functions functions_of() {
  using K = KindOf<kFormat>;
  return {K::kBytes,
          unpack_panel<kFormat>,
          {{add_tile<1, 3, K>, add_tile<1, 4, K>, add_tile<1, 5, K>, add_tile<1, 6, K>},
           {add_tile<2, 3, K>, add_tile<2, 4, K>, add_tile<2, 5, K>, add_tile<2, 6, K>}}};
}
static constexpr Functions kFunctions[] = {
    // indexed by WeightFormat
    functions_of<W8>(),  functions_of<W4S>(), functions_of<W4A>(), functions_of<W5S>(),
    functions_of<W5A>(), functions_of<W4K>(), functions_of<W5K>(), functions_of<W6K>(),
    functions_of<W2K>(), functions_of<W3K>(), functions_of<W4T>(), functions_of<W4TK>(),
    functions_of<W4F>()};

void unpack(const Weight* w, int32_t panel, int unit, int32_t group0, int32_t group1,
            Unpacked* out) {
  const Functions& f = kFunctions[w->format];
  for (int r = 0; r < unit; ++r)
    f.unpack(w->data + (panel + r) * w->panel_stride, group0, group1,
             out->bytes + r * kUnpackedGroups * f.group_bytes);
}

void add_unpacked(const Unpacked* panels, int32_t format, int unit, int32_t groups,
                  const int32_t* acts, int tokens, bool first, const uint8_t* ahead, int lines,
                  float* sums) {
  kFunctions[format].add[unit - 1][tokens - 3](panels->bytes, groups, acts, first, ahead, lines,
                                               sums);
}

}  // namespace octavo::OCTAVO_ISA

#endif
