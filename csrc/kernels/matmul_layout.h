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
  int32_t high;          // 5th or 3rd bits, 64 B a group (W6K: two high bits, 128 B a group)
  int32_t scale;         // fp16[16] a group; with d: 16 bytes a group, or a half (scales_of_halves)
  int32_t min;           // fp16[16] a group; with d: 16 bytes a group (W2K: in the bytes of scale)
  int32_t d;             // fp16[16] a supertile that the scales are multiples of; 0: none
  int32_t dmin;
};

// Indexed by WeightFormat, W8 .. W4F.
static constexpr SupertileLayout kSupertiles[] = {
    {2, 1088, 512, 0, 1024, 0, 0, 0},              // W8
    {2, 576, 256, 0, 512, 0, 0, 0},                // W4S
    {2, 640, 256, 0, 512, 576, 0, 0},              // W4A
    {2, 704, 256, 512, 640, 0, 0, 0},              // W5S
    {2, 768, 256, 512, 640, 704, 0, 0},            // W5A
    {8, 2368, 256, 0, 2048, 2176, 2304, 2336},     // W4K
    {8, 2880, 256, 2048, 2560, 2688, 2816, 2848},  // W5K
    {8, 3392, 256, 2048, 3072, 0, 3328, 0},        // W6K
    {8, 1344, 128, 0, 1024, 1024, 1280, 1312},     // W2K
    {8, 1856, 128, 1024, 1536, 0, 1792, 0},        // W3K
    {2, 576, 256, 0, 512, 0, 0, 0},                // W4T
    {8, 2240, 256, 0, 2048, 0, 2176, 0},           // W4TK
    {2, 576, 256, 0, 512, 0, 0, 0},                // W4F
};

static constexpr bool is_integer_format(int32_t format) { return format >= W8 && format <= W4F; }

// Whether 16 k share a scale, not 32.
static constexpr bool scales_of_halves(int32_t format) {
  return format == W6K || format == W2K || format == W3K;
}

// The values that IQ4_NL and IQ4_XS choose from, plus 128.
static constexpr uint8_t kTableBytes[16] = {1,   24,  45,  63,  79,  93,  106, 118,
                                            129, 141, 153, 166, 181, 197, 217, 241};

// Those of MXFP4, doubled so that they are whole, plus 16. The scale of a group is halved.
static constexpr uint8_t kFloatBytes[16] = {16, 17, 18, 19, 20, 22, 24, 28,
                                            16, 15, 14, 13, 12, 10, 8,  4};

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
