// tiles/matmul_int8.cpp: packed integer weights x int8 activations in tiles: the sums of
// matmul_integer.cpp, bit for bit.
//
// Panels are unpacked to signed bytes and float32 scales, a run of groups at a time, and meet every
// block of 16 rows. A part is what shares a scale, a group of 32 k or a half of 16: one tile of
// dots. While the tile of a part is multiplied, the dots of the two before go to L1 and from there,
// scaled, to the sums, which are in registers: so a panel and a block go through a run alone.
#include "kernels/matmul_kinds.h"
#include "kernels/tiles/matmul.h"

namespace octavo::OCTAVO_ISA {

constexpr int32_t kRunGroups = 24;  // whole supertiles; a panel of them stays in L1
constexpr int kRunBlocks = 12;      // that meet the same unpacked panels
constexpr int kSums = 16 * 16;      // of a panel and a block
constexpr int kRowStep = 4;         // kernels have 4, 8, 12 or 16 rows, of which fewer may count

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

// The groups of a block of rows.
struct Rows {
  const int32_t* groups;
  int count;

  OCTAVO_TILE_MEMBER const int32_t* group(int index) const {
    return groups + index * kGroupRows * count;
  }
};

// Tiles: dots 0 and 1; rows 4 and 5; a panel 6 and 7.
template <class K> static TileShapes shapes_for(int rows) {
  constexpr int kColumns = Parts<K>::kColumns;
  TileShapes shapes{};
  for (int i = 0; i < kTiles; ++i) {
    shapes.rows[i] = (uint8_t)(i < 6 ? rows : kColumns / 4);
    shapes.bytes[i] = (uint16_t)(i == 4 || i == 5 ? kColumns : 64);
  }
  return shapes;
}

// Two tiles of dots take turns: more of them are slower where a neighbour on the core has tiles.
template <class K, int T>
OCTAVO_INLINE void multiply_part(Tiles& t, Panel<K> panel, Rows rows, int part) {
  constexpr int kOfGroup = Parts<K>::kOfGroup;
  const uint8_t* a = (const uint8_t*)rows.group(part / kOfGroup);
  t.template load<4 + T>(a + part % kOfGroup * Parts<K>::kColumns, 32);
  t.template load<6 + T>(panel.quants(part), 64);
  t.template zero<T>();
  t.template dot_s8<T, 4 + T, 6 + T>();
}

// What the min of a part is multiplied with, of each row: of a group it is there, of a half it is
// made as am_of makes it.
template <class K> OCTAVO_INLINE const float* ams_of(const int32_t* a, int rows, int part,
                                                     float* room) {
  const auto row = [&](int i) {
    return load_f_mask((const float*)a + i * rows, first_lanes(rows));
  };
  if constexpr (!K::kHalves) return (const float*)a + kAmRow * rows;
  i32x16 start = as_int(row(part % 2 == 0 ? kLowRow : kStartRow));
  if (part % 2 != 0) start = sub_i(start, as_int(row(kLowRow)));
  store_f(room, mul(row(kScaleRow), to_float(shift_right_s<7>(start))));
  return room;
}

// sum += the dots of a part, as add_scaled and its min do. M rows of which rows.count count; the
// last is there again in place of those that do not. kAll: they are 16, so that every address is
// known.
template <class K, int M, bool kAll>
OCTAVO_INLINE void add_part(Panel<K> panel, Rows rows, int part, const int32_t* dots,
                            f32x16 (&sum)[M]) {
  const int count = kAll ? M : rows.count;
  const int32_t* a = rows.group(part / Parts<K>::kOfGroup);
  alignas(64) float room[16];
  const float *of_row = (const float*)a + kScaleRow * count,
              *am = K::kMin ? ams_of<K>(a, count, part, room) : nullptr;
  const f32x16 scale = load_f(panel.scales(part));
  const f32x16 min = K::kMin ? load_f(panel.scales(part) + K::kScales * 16) : zero_f();
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m) {
    const int row = kAll || m <= M - kRowStep || m < count ? m : count - 1;
    sum[m] = fma(to_float(load_i(dots + m * 16)), mul(scale, set1_f(of_row[row])), sum[m]);
    if constexpr (K::kMin) sum[m] = fma(min, set1_f(am[row]), sum[m]);
  }
}

// What comes into L2 meanwhile: `lines` of 64 bytes for every second part.
struct Stream {
  const uint8_t *at, *end;
  int lines;

  OCTAVO_TILE_MEMBER void advance() {
    if (at >= end) return;
#pragma GCC unroll 1
    for (int i = 0; i < lines; ++i, at += 64) __builtin_prefetch(at, 0, 2);
  }
};

// sums = (sums, or 0 if these are the first groups) + a panel times a block of rows, over a run of
// groups. Part i - 1 goes to L1 while part i is multiplied, and is scaled while i + 1 is.
template <class K, int M, bool kAll>
static void add_block(Tiles& t, Panel<K> panel, Rows rows, int groups, bool first, Stream* stream,
                      float* sums) {
  const int parts = groups * Parts<K>::kOfGroup;
  Stream ahead = *stream;  // what lies in memory would be read again after every store
  alignas(64) int32_t dots[2][M * 16];
  // Rows that no tile has are scaled and dropped, and nobody has written their dots.
  if constexpr (!kAll) __builtin_memset(dots, 0, sizeof dots);
  f32x16 sum[M];
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m) sum[m] = first ? zero_f() : load_f(sums + m * 16);
  const auto add = [&](int part) __attribute__((always_inline)) {
    add_part<K, M, kAll>(panel, rows, part, dots[part % 2], sum);
  };
  multiply_part<K, 0>(t, panel, rows, 0);
  int i = 1;  // odd: part i - 1 is in tile 0, and part i - 2 in dots[1]
  for (; i + 1 < parts; i += 2) {
    multiply_part<K, 1>(t, panel, rows, i);
    t.template store<0>(dots[0], 64);
    ahead.advance();
    if (i > 1) add(i - 2);
    multiply_part<K, 0>(t, panel, rows, i + 1);
    t.template store<1>(dots[1], 64);
    add(i - 1);
  }
  *stream = ahead;
  if (i < parts) multiply_part<K, 1>(t, panel, rows, i);
  t.template store<0>(dots[0], 64);
  if (i > 1) add(i - 2);
  if (i < parts) t.template store<1>(dots[1], 64);
  add(i - 1);
  if (i < parts) add(i);
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m) store_f(sums + m * 16, sum[m]);
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

// A block of any number of rows, by the kernel that has the fewest beside them.
template <class K>
static void add_rows(Tiles& t, Panel<K> panel, Rows rows, int groups, bool first, Stream* stream,
                     float* sums) {
  const auto add = rows.count == 16  ? add_block<K, 16, true>
                   : rows.count > 12 ? add_block<K, 16, false>
                   : rows.count > 8  ? add_block<K, 12, false>
                   : rows.count > 4  ? add_block<K, 8, false>
                                     : add_block<K, 4, false>;
  add(t, panel, rows, groups, first, stream, sums);
}

// R panels from `panel` on times the blocks [block0, block1), of which rows [row0, row1) count.
template <int32_t kFormat, int R>
static void run_panels(const Range& range, int32_t panel, int32_t block0, int32_t block1,
                       int32_t row0, int32_t row1) {
  using K = KindOf<kFormat>;
  alignas(64) uint8_t unpacked[R][kRunGroups * K::kBytes];
  alignas(64) float sums[kRunBlocks][R * kSums];
  const Weight& w = *range.w;
  const uint8_t* const data = w.data + panel * w.panel_stride;
  const int32_t groups = w.cols / 32, pairs = (groups * Parts<K>::kOfGroup + 1) / 2;
  const uint8_t* const next = data + R * w.panel_stride;
  Stream ahead{next, panel + 2 * R <= w.panels ? next + R * w.panel_stride : next,
               (int)(w.panel_stride / 64 / ((block1 - block0) * pairs) + 1)};
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
        for (int r = 0; r < R; ++r) {
          float* sum = sums[groups <= kRunGroups ? 0 : i - block0] + r * kSums;
          add_rows<K>(t, {unpacked[r]}, of_block, end - first, first == 0, &ahead, sum);
          if (end == groups) finish_block(range, block, sum, panel + r, row0, row1);
        }
      }
    }
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
