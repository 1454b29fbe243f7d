// matmul.cpp: cuts a range of panels x tiles into units; the level's function table.
//
// Knows which unit size suits how many tokens. The order of the loops never touches the order of a
// sum.
#include "kernels/matmul_finish.h"

namespace octavo::OCTAVO_ISA {

constexpr int32_t kUnpackedTiles = 32;  // that meet the same unpacked panels

// ABF16X2 rows have two chains a sum: one panel is enough to hide their latency.
static int widest(const Range& range, int tokens) {
  return range.acts->kind == ABF16X2 ? 1 : widest_unit(range.w->format, tokens);
}

static TileFn tile_fn(int32_t format, int32_t kind, int unit, int tokens, int size) {
  if (kind == ABF16X2) return bf16x2_tile(format, tokens);
  return is_integer_format(format) ? integer_tile(format, unit, tokens, size)
                                   : float_tile(format, unit, tokens);
}

// One unit x one tile of `size` rows from `begin` on.
static void run_tile(const Range& range, int32_t panel, int unit, int32_t begin, int32_t size,
                     Ahead ahead) {
  alignas(64) float sums[kMaxUnit * kMaxTokens * 16];
  const Weight& w = *range.w;
  const int32_t* a = (const int32_t*)(range.acts->data + begin * range.act_row);
  const int32_t most = most_tokens(w.format);
  for (int32_t first = 0; first < size;) {
    const int32_t parts = (size - first + most - 1) / most,
                  tokens = (size - first + parts - 1) / parts;
    const int fit = widest(range, tokens), width = unit < fit ? unit : fit;
    const TileFn run = tile_fn(w.format, range.acts->kind, width, tokens, size);
    for (int r = 0; r < unit; r += width) {
      run(w.data + (panel + r) * w.panel_stride, w.panel_stride, range.length, a + first, size,
          ahead, sums);
      ahead.panels = 0;  // once is enough
      finish(range, sums, panel + r, width, begin + first, tokens);
    }
    first += tokens;
  }
}

#if OCTAVO_UNPACKS
// A panel or two and a few tiles at a time; what was unpacked of the panels stays in L1 for all
// tiles.
static void run_unpacked(const Range& range, int32_t panel, int unit, int32_t tile0,
                         int32_t tile1) {
  Unpacked unpacked;
  alignas(64) float sums[kUnpackedTiles][kUnpackedPanels * kMaxTile * 16];
  const Weight& w = *range.w;
  const int32_t groups = w.cols / 32, rows = range.acts->rows;
  // The next unit's bytes come into L2 evenly while this one is computed: what asks for all at once
  // waits for memory, and memory for it later.
  const uint8_t* ahead = w.data + (panel + unit) * w.panel_stride;
  const uint8_t* const ahead_end = panel + unit < w.panels ? ahead + unit * w.panel_stride : ahead;
  const int lines = (int)(unit * w.panel_stride / 64 / ((tile1 - tile0) * groups) + 1);
  for (int32_t group = 0; group < groups; group += kUnpackedGroups) {
    const int32_t end = groups - group < kUnpackedGroups ? groups : group + kUnpackedGroups;
    unpack(&w, panel, unit, group, end, &unpacked);
    for (int32_t tile = tile0; tile < tile1; ++tile) {
      const int32_t begin = tile_begin(rows, tile), size = tile_begin(rows, tile + 1) - begin;
      const uint8_t* a = range.acts->data + begin * range.act_row + group * 48 * size;
      float* tile_sums = sums[tile - tile0];
      add_unpacked(&unpacked, w.format, unit, end - group, (const int32_t*)a, size, group == 0,
                   ahead, ahead < ahead_end ? lines : 0, tile_sums);
      ahead += (int64_t)lines * (end - group) * 64;
      if (end == groups) finish(range, tile_sums, panel, unit, begin, size);
    }
  }
}

#endif

static void run_tiles(const Range& range, int32_t panel1, int32_t tile0, int32_t tile1) {
  const int32_t rows = range.acts->rows, base = rows / tile_count(rows),
                extra = rows % tile_count(rows);
  const int32_t start = tile_begin(rows, tile0), first_size = base + (tile0 < extra);
  const int tokens = first_size < kMaxTokens ? first_size : kMaxTokens;
  const int most = tile1 - tile0 == 1 ? widest(range, tokens) : 2;
  for (int32_t panel = range.panel0; panel < panel1;) {
    const int32_t left = panel1 - panel;
    const int unit = left >= 4 && most >= 4 ? 4 : left >= 2 && most >= 2 ? 2 : 1;
    // The next unit's bytes come into L2 while the first tiles of this one are computed.
    const bool next = panel + unit < range.w->panels;
    const int shares = tile1 - tile0 < unit ? tile1 - tile0 : unit;
    int32_t begin = start;
    for (int32_t tile = tile0; tile < tile1; ++tile) {
      const int32_t size = base + (tile < extra), share = tile - tile0;
      const int r0 = share * unit / shares, r1 = (share + 1) * unit / shares;
      run_tile(range, panel, unit, begin, size,
               {(unit + r0) * range.w->panel_stride, next && share < shares ? r1 - r0 : 0});
      begin += size;
    }
    panel += unit;
  }
}

static void matmul(const Weight* w, int32_t panel0, int32_t panel1, const Acts* a, int32_t tile0,
                   int32_t tile1, const Epilogue& epilogue, float* out, int64_t out_stride) {
  const int64_t act_row = act_row_bytes(a->kind, a->cols);
  const int64_t length = w->format == BF16  ? (w->cols + 1) / 2
                         : w->format == F32 ? w->cols
                                            : w->cols / 32;
  const Range range{w, a, epilogue, out, out_stride, panel0, act_row, length};
#if OCTAVO_UNPACKS
  if (a->kind == A32 && unpacks(w->format, tile1 - tile0)) {
    for (int32_t panel = panel0; panel < panel1; panel += kUnpackedPanels)
      for (int32_t tile = tile0; tile < tile1; tile += kUnpackedTiles)
        run_unpacked(range, panel, panel1 - panel < kUnpackedPanels ? 1 : kUnpackedPanels, tile,
                     tile1 - tile < kUnpackedTiles ? tile1 : tile + kUnpackedTiles);
    return;
  }
#endif
  run_tiles(range, panel1, tile0, tile1);
}

const MatmulKernels* matmul_kernels() {
  static constexpr MatmulKernels table{.quantize = quantize,
                                       .matmul = matmul,
                                       .expand_row = expand_row,
                                       .spin_dot = spin_dot,
                                       .read_sum = read_sum,
                                       .spin_fma = spin_fma,
                                       .spin_bf16 = kBf16Dots ? spin_bf16 : nullptr,
                                       .quantize_rows = quantize_rows,
                                       .gated = gated};
  return &table;
}

}  // namespace octavo::OCTAVO_ISA
