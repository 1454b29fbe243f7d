// formats.h: the layouts of weights and activations that kernels, packers and the interpreter
// share. Plain data, no code but address arithmetic.
//
// Functions here are `static inline` (internal linkage): these headers are included by sources of
// several ISA levels.
#pragma once
#include <cstddef>
#include <cstdint>

namespace octavo {

// Packed weights: (N rows, K columns), panels of 16 rows, contiguous along k.
//
// A group is 32 k, a k4 step 4 k; byte order inside a step: lane r (row), then i (k): r*4 + i.
// 4-bit group, 256 B: byte[(j*16 + r)*4 + i] = q[step j] | q[step j + 4] << 4, j = 0..3.
// 8-bit group, 512 B: j = 0..7. 5th bits of a group, 64 B: uint64 hi[j], bit r*4 + i, j = 0..7.
// Two bits of a group, 128 B: byte[v*64 + r*4 + i] holds steps 4v .. 4v+3, the first step lowest.
// 3rd bits of a group, 64 B: byte[r*4 + i], bit j. A supertile is 64 k, of types with blocks of 256
// these; its parts are in the order written, rows innermost.
//
// clang-format off
enum WeightFormat : int32_t {
  // type of GGUF, bytes of a supertile, its parts
  W8 = 0,   // Q8_0 1088  q[2][512] u8 = q + 128, scale fp16[2][16]
  W4S = 1,  // Q4_0  576  q[2][256] u8 = q + 8, scale fp16[2][16]
  W4A = 2,  // Q4_1  640  q[2][256] u8, scale fp16[2][16], min fp16[2][16]: w = scale*q + min
  W5S = 3,  // Q5_0  704  q[2][256], hi[2][64], scale fp16[2][16]; z = 16
  W5A = 4,  // Q5_1  768  q[2][256], hi[2][64], scale fp16[2][16], min fp16[2][16]
  W4K = 5,  // Q4_K 2368  q[8][256], sc u8[8][16], mn u8[8][16], d fp16[16], dmin fp16[16]:
            //            w = d*sc*q - dmin*mn
  W5K = 6,  // Q5_K 2880  q[8][256], hi[8][64], sc, mn, d, dmin as W4K
  W6K = 7,  // Q6_K 3392  q[8][256], two high bits [8][128], sc i8[16][16] (of 16 k), d fp16[16],
            //            pad 32: z = 32
  W2K = 8,  // Q2_K 1344  two bits [8][128], u8[16][16] sc | mn << 4 (of 16 k), d fp16[16],
            //            dmin fp16[16]: w = d*sc*q - dmin*mn
  W3K = 9,  // Q3_K 1856  two bits [8][128], 3rd bits [8][64], sc i8[16][16] (of 16 k), d fp16[16],
            //            pad 32: z = 4
  W4T = 10,   // IQ4_NL  576  as W4S, but q is an index: w = scale * kTableBytes[q]; z = 128
  W4TK = 11,  // IQ4_XS 2240  q[8][256] indices, sc i8[8][16], d fp16[16], pad 32
  W4F = 12,   // MXFP4   576  as W4T, of the eight floats of 2 bits of exponent and one of
              //            mantissa, and their negatives: kFloatBytes; z = 16
  BF16 = 13,  // 64 for 2 k  [K/2][16 rows][2 k] bf16
  F32 = 14,   // 64 for 1 k  [K][16 rows] float
};
// clang-format on

constexpr int32_t kPanelRows = 16;     // rows of a matrix that are packed together
constexpr int32_t kGroupColumns = 32;  // that share one scale: the least that is packed alone

struct Weight {          // a packed matrix; rows above N and columns above K are zero
  const uint8_t* data;   // 64-byte aligned
  int64_t panel_stride;  // bytes
  int32_t format;
  int32_t rows;    // N
  int32_t cols;    // K
  int32_t panels;  // ceil(N / 16)
};

// Packed activations: M rows in tiles of at most 6, [tile][group][...][row of the tile]. Tiles are
// balanced (7 = 4 + 3) so that no tail tile is thin; tile t holds rows [tile_begin(t),
// tile_begin(t + 1)). Mt are the rows of a tile.
enum ActKind : int32_t {
  // Of a group of 32 k, 48*Mt B: a s8[8 steps][Mt][4 k], scale f32[Mt], start i32[Mt], low
  // i32[Mt], am f32[Mt]. scale = amax/127; start = -128 * sum(q), what a dot with bytes of zero
  // point 128 begins with; low = the same of the first 16 k; am = scale * sum(q). At levels with
  // tiles, 32 rows or more are in blocks of 16 (the last may be shorter) in place of tiles, and
  // their bytes are a s8[rows][32 k]; all else is the same.
  A32 = 0,
  // [K/2][Mt] pairs of bf16. At levels with tiles rows are always in blocks of 16, and a block is
  // [K/32][rows][32 k], with fewer pairs at the end.
  ABF16 = 1,
  AF32 = 2,  // [K][Mt] float
  // 32 bits of every value. Of a group of 32 k, 140*Mt B: [35 rows][Mt] of 4 B. Where the level has
  // bf16 dots, a value is two bf16 terms, hi = bf16(x) and lo = bf16(x - hi), and step j
  // (k = 4j .. 4j+3) has the rows 4j: hi of (4j, 4j+2), 4j+1: hi of (4j+1, 4j+3), 4j+2 and 4j+3: lo
  // of the same pairs, the first in the low half. Elsewhere row k is x[k] as float. Rows 32, 33,
  // 34: float sums of all 32 values, of the first 16 and of the last 16; NaN if not finite.
  ABF16X2 = 3,
};
constexpr const char* kActKindNames[] = {"A32", "ABF16", "AF32", "ABF16X2"};
constexpr int kMaxTile = 6;
constexpr int kActBlock = 16;
constexpr int kLeastBlocked = 2 * kActBlock;  // fewer rows meet an unpacked panel too seldom

struct Acts {
  uint8_t* data;  // 64-byte aligned
  int32_t kind;
  int32_t rows;  // M
  int32_t cols;  // K of the consumer
};

// Whether rows lie in blocks at levels with tiles.
static inline bool lies_in_blocks(int32_t kind, int32_t rows) {
  return kind == ABF16 || (kind == A32 && rows >= kLeastBlocked);
}

static inline int32_t tile_count(int32_t rows) { return (rows + kMaxTile - 1) / kMaxTile; }
static inline int32_t tile_begin(int32_t rows, int32_t tile) {
  const int32_t tiles = tile_count(rows), base = rows / tiles, extra = rows % tiles;
  return tile * base + (tile < extra ? tile : extra);
}
static inline int32_t tile_of(int32_t rows, int32_t row) {
  const int32_t tiles = tile_count(rows), base = rows / tiles, extra = rows % tiles;
  const int32_t head = extra * (base + 1);
  return row < head ? row / (base + 1) : extra + (row - head) / base;
}
// Bytes of one activation row. There is no padding: a kernel reads exactly the groups that K has.
static inline int64_t act_row_bytes(int32_t kind, int32_t cols) {
  if (kind == A32) return (int64_t)((cols + 31) / 32) * 48;
  if (kind == ABF16X2) return (int64_t)((cols + 31) / 32) * 140;
  if (kind == ABF16) return (int64_t)((cols + 1) / 2) * 4;
  return (int64_t)cols * 4;
}

}  // namespace octavo
