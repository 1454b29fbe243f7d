// matmul_layout.h: where each part of a supertile of formats.h lies. Shared by the packers and the
// kernels.
//
// Everything is static: this header is included by sources of several ISA levels.
#pragma once
#include "formats.h"

namespace octavo {

struct SupertileLayout {
  int32_t groups;        // of 32 k in a supertile
  int32_t bytes;         // of a supertile
  int32_t group_quants;  // bytes of one group's q; q itself is always at offset 0
  int32_t high;          // 5th bits, 64 B a group (W6K: the two high bits, 128 B a group)
  int32_t scale;  // fp16[16] a group; K-quants: 16 bytes a group (W6K: 16 bytes a half group)
  int32_t min;    // fp16[16] a group; K-quants: 16 bytes a group
  int32_t d;      // K-quants: fp16[16] a supertile
  int32_t dmin;
};

// Indexed by WeightFormat, W8 .. W6K. The two high bits of W6K: byte[v*64 + r*4 + i] holds steps 4v
// .. 4v+3 of row r, two bits each, the first step lowest.
static constexpr SupertileLayout kSupertiles[] = {
    {2, 1088, 512, 0, 1024, 0, 0, 0},              // W8
    {2, 576, 256, 0, 512, 0, 0, 0},                // W4S
    {2, 640, 256, 0, 512, 576, 0, 0},              // W4A
    {2, 704, 256, 512, 640, 0, 0, 0},              // W5S
    {2, 768, 256, 512, 640, 704, 0, 0},            // W5A
    {8, 2368, 256, 0, 2048, 2176, 2304, 2336},     // W4K
    {8, 2880, 256, 2048, 2560, 2688, 2816, 2848},  // W5K
    {8, 3392, 256, 2048, 3072, 0, 3328, 0},        // W6K
};

static constexpr bool is_integer_format(int32_t format) { return format >= W8 && format <= W6K; }

// The rows that a format takes unless asked otherwise: integer formats also take ABF16X2.
static constexpr int32_t act_kind_of(int32_t format) {
  return format == BF16 ? ABF16 : format == F32 ? AF32 : A32;
}

// Bytes of one panel of 16 rows x `cols`.
static constexpr int64_t panel_bytes(int32_t format, int64_t cols) {
  if (format == BF16) return (cols + 1) / 2 * 64;
  if (format == F32) return cols * 64;
  const SupertileLayout& layout = kSupertiles[format];
  const int64_t span = layout.groups * 32;
  return (cols + span - 1) / span * layout.bytes;
}

}  // namespace octavo
