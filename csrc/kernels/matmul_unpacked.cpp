// matmul_unpacked.cpp: packed integer weights as bytes and float32 scales, and their product with
// int8 activations: the sums of matmul_integer.cpp, bit for bit.
//
// Panels that several tiles of rows meet are unpacked once for all of them: a port that shifts,
// masks or widens does no dot meanwhile (Intel has two for all of it).
#include "kernels/matmul_group.h"
#include "kernels/matmul_kinds.h"

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

// Loads stay on their side: those of a second half would come while the first needs every register.
OCTAVO_INLINE void keep_order() { __asm__ volatile("" ::: "memory"); }

// Panels are kUnpackedGroups apart, whatever their number of groups. kStride: of the tile that the
// M rows are of, 0 where only the caller knows it.
template <int R, int M, class K, int kStride>
__attribute__((noinline)) static void add_tile(const uint8_t* p, int32_t groups, const int32_t* a,
                                               int64_t stride, bool first, const uint8_t* ahead,
                                               int lines, float* sums) {
  constexpr int64_t kPanel = kUnpackedGroups * K::kBytes;
  if (kStride != 0) stride = kStride;  // offsets become constants
  f32x16 acc[R][M];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) acc[r][m] = first ? zero_f() : load_f(sums + (r * M + m) * 16);
  }
#pragma GCC unroll 1
  for (int32_t g = 0; g < groups; ++g, p += K::kBytes, a += kGroupRows * stride) {
#pragma GCC unroll 1
    for (int i = 0; i < lines; ++i, ahead += 64) __builtin_prefetch(ahead, 0, 2);
    if constexpr (K::kHalves) {
      add_half<R, M, K, kLowHalf>(p, kPanel, 0, a, stride, acc);
      keep_order();
      add_half<R, M, K, kHighHalf>(p, kPanel, 0, a, stride, acc);
    } else {
      add_group<R, M, K>(p, kPanel, 0, a, stride, acc);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) store_f(sums + (r * M + m) * 16, acc[r][m]);
  }
}

using AddTile = void (*)(const uint8_t* p, int32_t groups, const int32_t* a, int64_t stride,
                         bool first, const uint8_t* ahead, int lines, float* sums);

template <class K, int M> static AddTile pick_unit(int unit, int size) {
  if constexpr (kUnpackedPanels == 2)
    return unit == 2 ? add_tile<2, M, K, M> : add_tile<1, M, K, M>;
  if constexpr (M == kMaxTokens)
    if (size == kMaxTile) return add_tile<1, M, K, kMaxTile>;
  return add_tile<1, M, K, 0>;
}

template <class K> static AddTile pick_tokens(int unit, int tokens, int size) {
  if constexpr (kMaxTokens >= 6) {
    if (tokens == 6) return pick_unit<K, 6>(unit, size);
    if (tokens == 5) return pick_unit<K, 5>(unit, size);
    if (tokens == 4) return pick_unit<K, 4>(unit, size);
  } else {
    if (tokens == 2) return pick_unit<K, 2>(unit, size);
  }
  return pick_unit<K, 3>(unit, size);
}

struct Functions {  // of a format
  int64_t group_bytes;
  void (*unpack)(const uint8_t* p, int32_t group0, int32_t group1, uint8_t* out);
  AddTile (*pick)(int unit, int tokens, int size);
};
template <int32_t kFormat> static constexpr Functions functions_of() {
  using K = KindOf<kFormat>;
  return {K::kBytes, unpack_panel<kFormat>, pick_tokens<K>};
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
                  const int32_t* acts, int size, bool first, const uint8_t* ahead, int lines,
                  float* sums) {
  for (int row = 0; row < size;) {
    const int parts = (size - row + kMaxTokens - 1) / kMaxTokens,
              tokens = (size - row + parts - 1) / parts;
    kFunctions[format].pick(unit, tokens, size)(panels->bytes, groups, acts + row, size, first,
                                                ahead, lines, sums + row * 16);
    lines = 0;  // once is enough
    row += tokens;
  }
}

}  // namespace octavo::OCTAVO_ISA

#endif
