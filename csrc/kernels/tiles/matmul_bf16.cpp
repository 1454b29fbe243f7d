// tiles/matmul_bf16.cpp: bf16 weights x bf16 rows in tiles, whatever the number of rows.
//
// A sum takes 32 k at a time from 0 on, as dot_bf16 adds them; what is left at the end is a step of
// its own. So a row's bits depend neither on the rows beside it nor on their number. A panel is a
// run of tiles as it lies.
#include "kernels/tiles/matmul.h"

namespace octavo::OCTAVO_ISA {

constexpr int kStepBytes = 16 * 64;  // 32 k of a panel

// Two blocks of as many rows each times two panels, or one of either.
struct Unit {
  const uint8_t *rows[2], *panels[2];
  int32_t count;          // rows of a block
  bool ahead;             // whether the panels after these are asked for
  int64_t next;           // where they are
  float (*sums)[2][256];  // [block][panel][16 rows][16]
};

// Tiles: sums 0 .. 3, [block][panel]; rows 4 and 5; panels 6 and 7.
static TileShapes shapes_for(int rows, int step_bytes) {
  TileShapes shapes{};
  for (int i = 0; i < kTiles; ++i) {
    shapes.rows[i] = (uint8_t)(i < 6 ? rows : step_bytes / 4);
    shapes.bytes[i] = (uint16_t)(i == 4 || i == 5 ? step_bytes : 64);
  }
  return shapes;
}

template <int B, int R> OCTAVO_INLINE void load_sums(Tiles& t, const Unit& u) {
  t.template load<0>(u.sums[0][0], 64);
  if constexpr (R == 2) t.template load<1>(u.sums[0][1], 64);
  if constexpr (B == 2) t.template load<2>(u.sums[1][0], 64);
  if constexpr (B == 2 && R == 2) t.template load<3>(u.sums[1][1], 64);
}
template <int B, int R> OCTAVO_INLINE void store_sums(Tiles& t, const Unit& u) {
  t.template store<0>(u.sums[0][0], 64);
  if constexpr (R == 2) t.template store<1>(u.sums[0][1], 64);
  if constexpr (B == 2) t.template store<2>(u.sums[1][0], 64);
  if constexpr (B == 2 && R == 2) t.template store<3>(u.sums[1][1], 64);
}

// The steps [first, end), of `bytes` of a row each.
template <int B, int R>
static void add_steps(const Unit& u, int32_t first, int32_t end, int bytes) {
  Tiles t(shapes_for(u.count, bytes));
  load_sums<B, R>(t, u);
  for (int32_t step = first; step < end; ++step) {
    const int64_t a = (int64_t)step * 64 * u.count, b = (int64_t)step * kStepBytes;
    t.load<4>(u.rows[0] + a, bytes);
    t.load<6>(u.panels[0] + b, 64);
    t.dot_bf16<0, 4, 6>();
    if constexpr (R == 2) {
      t.load<7>(u.panels[1] + b, 64);
      t.dot_bf16<1, 4, 7>();
    }
    if constexpr (B == 2) {
      t.load<5>(u.rows[1] + a, bytes);
      t.dot_bf16<2, 5, 6>();
      if constexpr (R == 2) t.dot_bf16<3, 5, 7>();
    }
    for (int r = 0; r < R && u.ahead; ++r)
      for (int line = 0; line < bytes / 4; ++line)
        __builtin_prefetch(u.panels[r] + u.next + b + line * 64, 0, 2);
  }
  store_sums<B, R>(t, u);
}

template <int B, int R> static void multiply_unit(const Unit& u, int32_t cols) {
  const int32_t whole = cols / 32;
  for (int i = 0; i < B; ++i)
    for (int r = 0; r < R; ++r) __builtin_memset(u.sums[i][r], 0, sizeof u.sums[i][r]);
  if (whole > 0) add_steps<B, R>(u, 0, whole, 64);
  if (cols % 32 != 0) add_steps<B, R>(u, whole, whole + 1, bf16_step_bytes(cols, whole * 32));
}

template <int R>
static void run_panels(const Range& range, int32_t panel, int32_t row0, int32_t row1) {
  alignas(64) float sums[2][2][256];
  const Weight& w = *range.w;
  Unit u{};
  u.sums = sums;
  u.next = R * w.panel_stride;
  u.ahead = panel + 2 * R <= w.panels;  // once is enough
  for (int r = 0; r < R; ++r) u.panels[r] = w.data + (panel + r) * w.panel_stride;
  const int32_t end = (row1 + kTileRows - 1) / kTileRows;
  for (int32_t i = row0 / kTileRows; i < end; u.ahead = false) {
    const Block blocks[2] = {block_of(range.acts, i),
                             block_of(range.acts, i + 1 < end ? i + 1 : i)};
    const int count = i + 1 < end && blocks[1].rows == blocks[0].rows ? 2 : 1;
    u.count = blocks[0].rows;
    for (int b = 0; b < count; ++b) u.rows[b] = blocks[b].acts;
    if (count == 2) multiply_unit<2, R>(u, w.cols);
    else multiply_unit<1, R>(u, w.cols);
    for (int b = 0; b < count; ++b)
      for (int r = 0; r < R; ++r) finish_block(range, blocks[b], sums[b][r], panel + r, row0, row1);
    i += count;
  }
}

void multiply_bf16(const Range& range, int32_t panel1, int32_t row0, int32_t row1) {
  for (int32_t panel = range.panel0; panel < panel1; panel += 2)
    (panel1 - panel < 2 ? run_panels<1> : run_panels<2>)(range, panel, row0, row1);
}

}  // namespace octavo::OCTAVO_ISA
