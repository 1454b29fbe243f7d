// matmul_parts.h: what the matmul_*.cpp sources of one ISA level show each other.
#pragma once
#include "kernels/matmul.h"
#include "kernels/matmul_layout.h"
#include "kernels/simd.h"

namespace octavo::OCTAVO_ISA {

// One unit of R panels x M tokens: sums[(r*M + m)*16 + row] over all of K.
//   panels: panel r at panels + r*panel_stride. length: groups of 32 k (integer formats), pairs
//   (BF16) or columns (F32). acts: int32 rows of `stride` tokens, at the first of the M tokens;
//   stride is the tile's Mt. ahead: what to ask for meanwhile.
struct Ahead {  // whole panels that will be read next, `panels` of them from panels + offset on
  int64_t offset;
  int panels;
};
using TileFn = void (*)(const uint8_t* panels, int64_t panel_stride, int64_t length,
                        const int32_t* acts, int64_t stride, Ahead ahead, float* sums);

// Panels a unit may have. Registers: R*M sums and R*M integer dots of 16 lanes, the weights and one
// broadcast. Few tokens are bound by memory: one panel at a time is one stream through it
// (measured 1.3 times the speed of four). The float formats have one chain a sum and need several
// panels to hide its latency.
constexpr int kMaxUnit = 4;
#if OCTAVO_LEVEL >= OCTAVO_LEVEL_avx512
constexpr int kMaxTokens = 6;  // of a unit: a whole tile
constexpr int widest_unit(int32_t format, int tokens) {
  return is_integer_format(format) ? (tokens <= 2 ? 1 : 2) : tokens <= 3 ? 4 : 2;
}
#else
constexpr int kMaxTokens = 3;  // 16 registers of 8 lanes: a tile of activations is taken in parts
constexpr int widest_unit(int32_t format, int tokens) {
  return is_integer_format(format) || tokens > 1 ? 1 : 2;
}
#endif
// Tokens of a unit. F32 has one sum for each row and token and nothing to take apart: 16 registers
// of 8 lanes hold a whole tile.
constexpr int most_tokens(int32_t format) {
  return OCTAVO_LEVEL >= OCTAVO_LEVEL_avx2 && format == F32 ? kMaxTile : kMaxTokens;
}

// How ABF16X2 rows are written: as two bf16 terms, or as the float itself.
constexpr bool kBf16Dots = OCTAVO_BF16_DOTS;

// Whether panels that many tiles meet are unpacked once for all of them.
#define OCTAVO_UNPACKS (OCTAVO_LEVEL >= OCTAVO_LEVEL_avx512 || OCTAVO_LEVEL == OCTAVO_LEVEL_avx2)
constexpr int kUnpackedPanels = OCTAVO_LEVEL >= OCTAVO_LEVEL_avx512 ? 2 : 1;  // at most, at once
constexpr int32_t kUnpackTiles = 4;                                           // from so many on

// Where dots of bf16 are an instruction worth having (AMD), a load, a shift and a mask have ports
// of their own and cost nothing beside the dots: only formats of more parts gain.
constexpr bool unpacks(int32_t format, int32_t tiles) {
  const SupertileLayout& layout = kSupertiles[format];
  const bool simple = layout.high == 0 && layout.group_quants >= 256;
  return OCTAVO_UNPACKS && tiles >= kUnpackTiles && !(kBf16Dots && simple);
}

// unit 1 or 2, tokens in [1, kMaxTokens], of a tile of `size`
TileFn integer_tile(int32_t format, int unit, int tokens, int size);
TileFn bf16x2_tile(int32_t format, int tokens);  // one panel
TileFn float_tile(int32_t format, int unit, int tokens);

// matmul_unpacked.cpp: 32 k of the panels [panel, panel + unit), at most kUnpackedPanels, as bytes
// and float32 scales in L1, and a tile of rows times these.
constexpr int32_t kUnpackedGroups = 24;  // whole supertiles
struct Unpacked {
  alignas(64) uint8_t bytes[kUnpackedPanels * kUnpackedGroups * 768];
};
void unpack(const Weight* w, int32_t panel, int unit, int32_t group0, int32_t group1,
            Unpacked* out);
// sums[(r*M + m)*16 + row] += the product of these groups; `acts` are those of group0, of a whole
// tile of M = 3..6 rows, one panel where kMaxTokens is less. first: sums begin at 0. With each
// group `lines` of 64 bytes come into L2, from `ahead` on.
void add_unpacked(const Unpacked* panels, int32_t format, int unit, int32_t groups,
                  const int32_t* acts, int size, bool first, const uint8_t* ahead, int lines,
                  float* sums);

void quantize(const float* x, const Acts* acts, int32_t row, int32_t k0, int32_t k1);
void quantize_rows(const float* x, int64_t x_stride, const Acts* acts, int32_t row0, int32_t row1,
                   int32_t k0, int32_t k1);
// matmul_quantize_tile.cpp, where it is there: `groups` of 32 columns of a whole A32 tile of two
// rows or more, of which `out` is the first group's. Rows of x are x_stride floats apart.
#define OCTAVO_PACKS_TILES (OCTAVO_LEVEL >= OCTAVO_LEVEL_avx512)
void quantize_tile(const float* x, int64_t x_stride, int rows, int groups, int32_t* out);
bool gated(const Weight* gate, const Weight* up, int32_t panel0, int32_t panel1, const Acts* a,
           int32_t tile0, int32_t tile1, int32_t activation, const Acts* out);
void expand_row(const Weight* w, int32_t row, float* out);
void spin_dot(int64_t iterations, int64_t* sink);
void read_sum(const void* data, int64_t bytes, int64_t* sink);
void spin_fma(int64_t iterations, int64_t* sink);
void spin_bf16(int64_t iterations, int64_t* sink);

}  // namespace octavo::OCTAVO_ISA
