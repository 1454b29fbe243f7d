// tiles/matmul_int8.cpp: packed integer weights x int8 activations in tiles: the sums of
// matmul_integer.cpp, bit for bit.
//
// Two panels are unpacked to signed bytes and float32 scales, a run of groups at a time, and meet
// every block of 16 rows. A part is what shares a scale, a group of 32 k or a half of 16: one tile
// of dots for each panel. Parts go in pairs, and while the tiles of a pair are multiplied the dots
// of the pair before, which lie in L1, are scaled and added.
#include "kernels/matmul_kinds.h"
#include "kernels/tiles/matmul.h"

namespace octavo::OCTAVO_ISA {

constexpr int32_t kRunGroups = 24;  // whole supertiles; two panels of them stay in L1
constexpr int kRunBlocks = 12;      // that meet the same unpacked panels
constexpr int kSums = 16 * 16;      // of a panel and a block

template <class K> struct Parts {
  static constexpr int kOfGroup = K::kHalves ? 2 : 1, kColumns = 32 / kOfGroup;
};

// A panel of one kind of weight, unpacked.
template <class K> struct Panel {
  const uint8_t* groups;

  OCTAVO_TILE_MEMBER const uint8_t* group(int part) const {
    return groups + part / Parts<K>::kOfGroup * K::kBytes;
  }
  OCTAVO_TILE_MEMBER const uint8_t* quants(int part) const {
    return group(part) + part % Parts<K>::kOfGroup * (kQuantBytes / Parts<K>::kOfGroup);
  }
  OCTAVO_TILE_MEMBER const float* scales(int part) const {
    return (const float*)(group(part) + kQuantBytes) + part % Parts<K>::kOfGroup * 16;
  }
};

template <class K, int R> struct Panels {
  Panel<K> of[R];
};

// The groups of a block of rows.
struct Rows {
  const int32_t* groups;
  int count;

  OCTAVO_TILE_MEMBER const int32_t* group(int index) const {
    return groups + index * kGroupRows * count;
  }
};

// Dots on their way from tiles to sums: two pairs of parts, in turns.
struct alignas(64) Dots {
  int32_t of[2][2][2][kSums];  // [turn][part of the pair][panel]
};

// Tiles: dots of the first part 0 and 1, of the second 2 and 3; rows 4 and 5; panels 6 and 7.
template <class K> static TileShapes shapes_for(int rows) {
  constexpr int kColumns = Parts<K>::kColumns;
  TileShapes shapes{};
  for (int i = 0; i < kTiles; ++i) {
    shapes.rows[i] = (uint8_t)(i < 6 ? rows : kColumns / 4);
    shapes.bytes[i] = (uint16_t)(i == 4 || i == 5 ? kColumns : 64);
  }
  return shapes;
}

template <class K, int R, int kSecond>
OCTAVO_INLINE void multiply_part(Tiles& t, Panels<K, R> panels, Rows rows, int part) {
  constexpr int kOfGroup = Parts<K>::kOfGroup, kFirst = 2 * kSecond, kRows = 4 + kSecond;
  const uint8_t* a = (const uint8_t*)rows.group(part / kOfGroup);
  t.template load<kRows>(a + part % kOfGroup * Parts<K>::kColumns, 32);
  t.template load<6>(panels.of[0].quants(part), 64);
  t.template zero<kFirst>();
  t.template dot_s8<kFirst, kRows, 6>();
  if constexpr (R == 2) {
    t.template load<7>(panels.of[1].quants(part), 64);
    t.template zero<kFirst + 1>();
    t.template dot_s8<kFirst + 1, kRows, 7>();
  }
}

template <int R, int kSecond> OCTAVO_INLINE void store_part(Tiles& t, int32_t (*to)[kSums]) {
  t.template store<2 * kSecond>(to[0], 64);
  if constexpr (R == 2) t.template store<2 * kSecond + 1>(to[1], 64);
}

// sums += the dots of `count` parts, one part after the other, each as add_scaled and its min do.
template <class K, int R, int kCount>
OCTAVO_INLINE void add_parts(Panels<K, R> panels, Rows rows, int first,
                             const int32_t (*dots)[2][kSums], float* sums) {
  const int64_t stride = rows.count;
  const int32_t* a[kCount];
  for (int i = 0; i < kCount; ++i) a[i] = rows.group((first + i) / Parts<K>::kOfGroup);
#pragma GCC unroll 2
  for (int r = 0; r < R; ++r) {
    f32x16 scale[kCount], min[kCount];
#pragma GCC unroll 2
    for (int i = 0; i < kCount; ++i) {
      scale[i] = load_f(panels.of[r].scales(first + i));
      min[i] = K::kMin ? load_f(panels.of[r].scales(first + i) + K::kScales * 16) : zero_f();
    }
#pragma GCC unroll 4
    for (int m = 0; m < rows.count; ++m) {
      f32x16 sum = load_f(sums + r * kSums + m * 16);
#pragma GCC unroll 2
      for (int i = 0; i < kCount; ++i) {
        const f32x16 of_row = as_float(set1_i(a[i][kScaleRow * stride + m]));
        const f32x16 dot = to_float(load_i(dots[i][r] + m * 16));
        sum = fma(dot, mul(scale[i], of_row), sum);
        if constexpr (K::kMin) {
          const f32x16 am = !K::kHalves ? am_of(kWhole, a[i], stride, m)
                            : i == 0    ? am_of(kLowHalf, a[i], stride, m)
                                        : am_of(kHighHalf, a[i], stride, m);
          sum = fma(min[i], am, sum);
        }
      }
      store_f(sums + r * kSums + m * 16, sum);
    }
  }
}

// What comes into L2 meanwhile: `lines` of 64 bytes for every pair of parts.
struct Stream {
  const uint8_t *at, *end;
  int lines;

  OCTAVO_TILE_MEMBER void advance() {
    if (at >= end) return;
#pragma GCC unroll 1
    for (int i = 0; i < lines; ++i, at += 64) __builtin_prefetch(at, 0, 2);
  }
};

// sums += R panels times a block of rows, over a run of groups.
template <class K, int R>
static void add_block(Tiles& t, Panels<K, R> panels, Rows rows, int groups, Stream* stream,
                      float* sums) {
  const int parts = groups * Parts<K>::kOfGroup, pairs = parts / 2;
  Stream ahead = *stream;  // what lies in memory would be read again after every store
  Dots dots;
  for (int i = 0; i < pairs; ++i) {
    multiply_part<K, R, 0>(t, panels, rows, 2 * i);
    multiply_part<K, R, 1>(t, panels, rows, 2 * i + 1);
    ahead.advance();
    if (i > 0) add_parts<K, R, 2>(panels, rows, 2 * i - 2, dots.of[(i - 1) % 2], sums);
    store_part<R, 0>(t, dots.of[i % 2][0]);
    store_part<R, 1>(t, dots.of[i % 2][1]);
  }
  *stream = ahead;
  if (parts % 2 != 0) multiply_part<K, R, 0>(t, panels, rows, parts - 1);
  if (pairs > 0) add_parts<K, R, 2>(panels, rows, 2 * pairs - 2, dots.of[(pairs - 1) % 2], sums);
  if (parts % 2 == 0) return;
  store_part<R, 0>(t, dots.of[pairs % 2][0]);
  add_parts<K, R, 1>(panels, rows, parts - 1, dots.of[pairs % 2], sums);
}

template <int32_t kFormat>
static void unpack_panel(const uint8_t* p, int32_t group0, int32_t group1, uint8_t* out) {
  using G = Group<kFormat>;
  using K = KindOf<kFormat>;
  constexpr int32_t kGroups = G::kLayout.groups;
  const i32x16 less_128 = set1_i((int32_t)(K::kZero ? 0x80808080u : 0));
  for (int32_t g = group0; g < group1; ++g, out += K::kBytes) {
    const uint8_t* supertile = p + (int64_t)(g / kGroups) * G::kLayout.bytes;
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j)
      store_i(out + j * 64,
              _mm512_xor_si512(K::template step<G>(supertile, g % kGroups, j), less_128));
    K::template unpack_scales<G>(supertile, g % kGroups, (float*)(out + kQuantBytes));
  }
}

// R panels from `panel` on times the blocks [block0, block1), of which rows [row0, row1) count.
template <int32_t kFormat, int R>
static void run_panels(const Range& range, int32_t panel, int32_t block0, int32_t block1,
                       int32_t row0, int32_t row1) {
  using K = KindOf<kFormat>;
  alignas(64) uint8_t unpacked[R][kRunGroups * K::kBytes];
  alignas(64) float sums[kRunBlocks][R * kSums] = {};
  const Weight& w = *range.w;
  const uint8_t* const data = w.data + panel * w.panel_stride;
  const int32_t groups = w.cols / 32, pairs = (groups * Parts<K>::kOfGroup + 1) / 2;
  const uint8_t* const next = data + R * w.panel_stride;
  Stream ahead{next, panel + 2 * R <= w.panels ? next + R * w.panel_stride : next,
               (int)(R * w.panel_stride / 64 / ((block1 - block0) * pairs) + 1)};
  Panels<K, R> panels;
  for (int r = 0; r < R; ++r) panels.of[r].groups = unpacked[r];
  for (int32_t first = 0; first < groups; first += kRunGroups) {
    const int32_t end = groups - first < kRunGroups ? groups : first + kRunGroups;
    for (int r = 0; r < R; ++r)
      unpack_panel<kFormat>(data + r * w.panel_stride, first, end, unpacked[r]);
    for (int32_t i = block0; i < block1;) {
      const int rows = block_of(range.acts, i).rows;
      Tiles t(shapes_for<K>(rows));
      for (; i < block1; ++i) {
        const Block block = block_of(range.acts, i);
        if (block.rows != rows) break;
        const Rows of_block{(const int32_t*)block.acts + (int64_t)first * kGroupRows * rows, rows};
        add_block<K, R>(t, panels, of_block, end - first, &ahead, sums[i - block0]);
      }
    }
  }
  for (int32_t i = block0; i < block1; ++i) {
    const Block block = block_of(range.acts, i);
    for (int r = 0; r < R; ++r)
      finish_block(range, block, sums[i - block0] + r * kSums, panel + r, row0, row1);
  }
}

template <int32_t kFormat>
static void run(const Range& range, int32_t panel1, int32_t row0, int32_t row1) {
  const int32_t end = (row1 + kTileRows - 1) / kTileRows;
  for (int32_t panel = range.panel0; panel < panel1; panel += 2)
    for (int32_t block = row0 / kTileRows; block < end; block += kRunBlocks) {
      const int32_t last = end - block < kRunBlocks ? end : block + kRunBlocks;
      const auto panels = panel1 - panel < 2 ? run_panels<kFormat, 1> : run_panels<kFormat, 2>;
      panels(range, panel, block, last, row0, row1);
    }
}

void multiply_int8(const Range& range, int32_t panel1, int32_t row0, int32_t row1) {
  using Run = void (*)(const Range&, int32_t, int32_t, int32_t);
  static constexpr Run kRuns[] = {run<W8>,  run<W4S>,  run<W4A>, run<W5S>, run<W5A>,
                                  run<W4K>, run<W5K>,  run<W6K>, run<W2K>, run<W3K>,
                                  run<W4T>, run<W4TK>, run<W4F>};
  kRuns[range.w->format](range, panel1, row0, row1);
}

}  // namespace octavo::OCTAVO_ISA
