// attention_tile.h: what a tile of 64 tokens is walked with: rows and their state, addresses, and
// the kernels of the products.
//
// A row is (query token, head). Addresses come as one pointer for each unit of 16 tokens
// (kv_formats.h), so the block size does not show in the products.
#pragma once
#include "kernels/attention.h"
#include "kernels/simd.h"

namespace octavo::OCTAVO_ISA {

// Accumulators that stay in registers: 24 of 32 zmm, 6 x 2 of 16 ymm, 3 x 4 of 16 xmm.
constexpr int kAccumulators = OCTAVO_LEVEL >= OCTAVO_LEVEL_avx512 ? 24
                              : OCTAVO_LEVEL >= OCTAVO_LEVEL_avx2 ? 6
                                                                  : 3;
constexpr int kPassRows = OCTAVO_LEVEL >= OCTAVO_LEVEL_amx      ? 16
                          : OCTAVO_LEVEL >= OCTAVO_LEVEL_avx512 ? 12
                          : OCTAVO_LEVEL >= OCTAVO_LEVEL_avx2   ? 6
                                                                : 3;
constexpr int kTile = kAttentionTile;

static inline int least(int a, int b) { return a < b ? a : b; }
static inline int most(int a, int b) { return a > b ? a : b; }

using Addresses = const uint8_t* const*;  // of up to 4 units

// Where the units [s0, s1) of a tile begin, and what is prefetched while each is read: the same
// unit of the next tile, and kSoon behind it, what is read half a tile on (the tile's V while K is
// read, the next tile's K while V is).
constexpr int kSoon = 4;
struct TileAddresses {
  const uint8_t *k[4], *v[4], *next_k[2 * kSoon], *next_v[2 * kSoon];
  bool ahead;
  bool soon;  // whether tiles ask for what is behind kSoon: where rows are few, memory is slower
};

using ScoresFn = void (*)(Addresses k, Addresses ahead, int s0, int s1, const void* q, int k_dim,
                          float* score);
using ValuesFn = void (*)(Addresses v, Addresses ahead, int begin, int end, const void* p,
                          const float* alpha, int v_dim, float* o);

struct TileKernels {  // for one number of rows; indexed by [ahead][KVFormat]
  int rows;
  ScoresFn scores[2][kKVFormats];
  ValuesFn values[2][kKVFormats];
};

// (token, head) rows that go through a tile together, and their state over a chunk.
struct alignas(64) Pass {
  float lane_l[kPassRows][16];
  float m[16], l[16];  // of row i in lane i
  // Positions that the row sees, of those behind the sinks; both grow with the row.
  int32_t first[kPassRows], last[kPassRows];
  int32_t beginning[kPassRows];  // positions below it are seen too, with far_q; of a far row
  float slope[kPassRows];        // where there are slopes
  int32_t rows;                  // those that count; kernels->rows may be more
  const TileKernels* kernels;
  const void* q;       // packed [step][kernels->rows]
  const void* sink_q;  // the same for the sinks' format, where there are some
  const void* far_q;   // and that for a beginning, where there is one; never beside sinks
  float* o;            // [kernels->rows][v_dim]
  bool begun = false;  // in tiles over bf16 pages: o is there; else it stands for 0
};

struct alignas(64) Tile {  // what a pass works on in one tile
  float score[kPassRows][kTile];
  uint32_t p[kPassRows][kTile];  // as V's format takes them
  float alpha[16];
  int32_t begin;                         // its first position
  int32_t lo[kPassRows], hi[kPassRows];  // tokens of the tile that the row sees: [lo, hi)
};

}  // namespace octavo::OCTAVO_ISA
