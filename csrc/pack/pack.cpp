// pack.cpp: the lossless packers of the 32-value blocks (Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL), and
// which packer a type has.
//
// A 4-bit GGML block holds value i and i+16 in one byte and so do we: packing only turns rows of
// words into columns.
#include "pack/pack.h"

#include "pack/pack_blocks.h"
#include "pack/pack_parts.h"

namespace octavo {
namespace {

// Where the parts of a 32-value block lie: fp16 d, then fp16 m, 4 bytes of 5th bits, the quants.
struct SmallBlock {
  int bytes;
  int min;   // 0: none
  int high;  // 0: none
  int quants;
  int words;  // 32-bit words of quants
};
constexpr SmallBlock kQ4_0{18, 0, 0, 2, 4}, kQ4_1{20, 2, 0, 4, 4}, kQ5_0{22, 0, 2, 6, 4},
    kQ5_1{24, 2, 4, 8, 4}, kQ8_0{34, 0, 0, 2, 8};

template <const SmallBlock& kBlock, int32_t kFormat>
void pack_small(const PanelSource& from, uint8_t* panel) {
  constexpr SupertileLayout layout = kSupertiles[kFormat];
  const int64_t groups = from.cols / 32;
  for (int64_t group = 0; group < groups; ++group) {
    const uint8_t* src = from.first_row + group * kBlock.bytes;
    uint8_t* dst = panel + group / 2 * layout.bytes;
    const int half = (int)(group % 2);
    transpose_rows(src + kBlock.quants, from.row_bytes, from.rows, kBlock.words,
                   kFormat == W8 ? 0x80808080u : 0, dst + half * layout.group_quants);
    uint64_t high[8] = {};
    for (int r = 0; r < from.rows; ++r) {
      const uint8_t* block = src + r * from.row_bytes;
      std::memcpy(dst + layout.scale + half * 32 + r * 2, block, 2);
      if constexpr (kBlock.min != 0)
        std::memcpy(dst + layout.min + half * 32 + r * 2, block + kBlock.min, 2);
      if constexpr (kBlock.high != 0) scatter_fifth_bits(load_u32(block + kBlock.high), r, high);
    }
    if constexpr (kBlock.high != 0) std::memcpy(dst + layout.high + half * 64, high, 64);
  }
}

constexpr const char* kFormatNames[] = {"W8",  "W4S", "W4A", "W5S",  "W5A", "W4K",  "W5K", "W6K",
                                        "W2K", "W3K", "W4T", "W4TK", "W4F", "BF16", "F32"};

using PanelPacker = void (*)(const PanelSource&, uint8_t*);

PanelPacker lossless_packer(int ggml_type) {
  switch (ggml_type) {
    case kGgmlQ4_0: return pack_small<kQ4_0, W4S>;
    case kGgmlQ4_1: return pack_small<kQ4_1, W4A>;
    case kGgmlQ5_0: return pack_small<kQ5_0, W5S>;
    case kGgmlQ5_1: return pack_small<kQ5_1, W5A>;
    case kGgmlQ8_0: return pack_small<kQ8_0, W8>;
    case kGgmlQ4_K: return pack_q4_k;
    case kGgmlQ5_K: return pack_q5_k;
    case kGgmlQ2_K: return pack_q2_k;
    case kGgmlQ3_K: return pack_q3_k;
    case kGgmlIQ4_NL: return pack_small<kQ4_0, W4T>;
    case kGgmlIQ4_XS: return pack_iq4_xs;
    case kGgmlMXFP4: return pack_mxfp4;
    default: return pack_q6_k;
  }
}

}  // namespace

bool is_float_type(int ggml_type) {
  return ggml_type == kGgmlF32 || ggml_type == kGgmlF16 || ggml_type == kGgmlBF16;
}

void pack_lossless(int ggml_type, const PanelSource& from, uint8_t* panel) {
  lossless_packer(ggml_type)(from, panel);
}

const GgmlBlock& ggml_block(int ggml_type) {
  static constexpr struct {
    int type;
    GgmlBlock block;
  } kBlocks[] = {
      {kGgmlF32, {"F32", 1, 4, F32}},         {kGgmlF16, {"F16", 1, 2, BF16}},
      {kGgmlQ4_0, {"Q4_0", 32, 18, W4S}},     {kGgmlQ4_1, {"Q4_1", 32, 20, W4A}},
      {kGgmlQ5_0, {"Q5_0", 32, 22, W5S}},     {kGgmlQ5_1, {"Q5_1", 32, 24, W5A}},
      {kGgmlQ8_0, {"Q8_0", 32, 34, W8}},      {kGgmlQ4_K, {"Q4_K", 256, 144, W4K}},
      {kGgmlQ5_K, {"Q5_K", 256, 176, W5K}},   {kGgmlQ6_K, {"Q6_K", 256, 210, W6K}},
      {kGgmlQ2_K, {"Q2_K", 256, 84, W2K}},    {kGgmlQ3_K, {"Q3_K", 256, 110, W3K}},
      {kGgmlIQ4_NL, {"IQ4_NL", 32, 18, W4T}}, {kGgmlIQ4_XS, {"IQ4_XS", 256, 136, W4TK}},
      {kGgmlMXFP4, {"MXFP4", 32, 17, W4F}},   {kGgmlBF16, {"BF16", 1, 2, BF16}},
  };
  for (const auto& entry : kBlocks)
    if (entry.type == ggml_type) return entry.block;
  std::string names;
  for (const auto& entry : kBlocks)
    names += std::string(names.empty() ? "" : ", ") + entry.block.name;
  throw std::invalid_argument("ggml_type: expected one of " + names + ", got type " +
                              std::to_string(ggml_type));
}

const char* format_name(int32_t format) {
  if (format < W8 || format > F32)
    throw std::invalid_argument("format: expected a WeightFormat 0..14, got " +
                                std::to_string(format));
  return kFormatNames[format];
}

int32_t format_named(const std::string& name) {
  for (int32_t format = W8; format <= F32; ++format)
    if (name == kFormatNames[format]) return format;
  std::string names;
  for (const char* each : kFormatNames) names += std::string(names.empty() ? "" : ", ") + each;
  throw std::invalid_argument("format: expected one of " + names + ", got " + name);
}

bool can_pack(int ggml_type, int32_t format) {
  const bool quantizes = is_float_type(ggml_type) && (format == W8 || format == W4S);
  return format == BF16 || format == F32 || quantizes || ggml_block(ggml_type).format == format;
}

bool pack_panels(int ggml_type, const uint8_t* src, int64_t rows, int64_t cols, WeightFormat format,
                 int64_t panel0, int64_t panel1, uint8_t* dst) {
  const GgmlBlock& block = ggml_block(ggml_type);
  const int64_t row_bytes = cols / block.values * block.bytes, bytes = panel_bytes(format, cols);
  bool fits = true;
  for (int64_t panel = panel0; panel < panel1; ++panel) {
    const int64_t first = panel * 16, left = rows - first;
    const PanelSource from{src + first * row_bytes, row_bytes, left < 16 ? (int)left : 16, cols};
    uint8_t* to = dst + panel * bytes;
    if (from.rows < 16 || cols % (is_integer_format(format) ? 64 : 2) != 0)
      std::memset(to, 0, (size_t)bytes);
    if (ggml_type == kGgmlMXFP4) fits &= mxfp4_fits(from, format);
    if (!is_integer_format(format)) pack_floats(ggml_type, from, format, to);
    else if (is_float_type(ggml_type)) fits &= pack_quantized(ggml_type, from, format, to);
    else pack_lossless(ggml_type, from, to);
  }
  return fits;
}

}  // namespace octavo
