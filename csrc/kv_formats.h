// kv_formats.h: the formats of K and V as one table, and how the pages of a layer group are cut.
//
// A unit is 16 tokens of one kv head, contiguous whatever the block size: their values, then their
// scales. Pages are [block][layer][K|V][kv_head][unit], one address range per layer group; K and V
// have their own width and format. V that is a part of K may have no pages: it is where K is. Plain
// data and address arithmetic. What a format's bytes mean to
// a kernel is KV<format> of kernels/kv_traits.h.
#pragma once
#include <cstddef>
#include <cstdint>

namespace octavo {

enum KVFormat : int32_t { KV_F32, KV_BF16, KV_INT8, KV_INT4, kKVFormats };

struct KVFormatRow {
  const char* name;      // part of the names of cached blocks: it never changes its meaning
  int32_t bits;          // of a value
  int32_t scale_bytes;   // of a row (a token's K or V of one kv head), or of each of its groups
  int32_t group;         // values that have scales of their own; 0: the row
  const char* k_layout;  // of the values of a unit
  const char* v_layout;
  bool gives_v = false;  // whether V, if it is a part of K, can be read from K's values
};

// Indexed by KVFormat.
static constexpr KVFormatRow kKVFormatTable[] = {
    {"f32", 32, 0, 0, "[D][16 tok]", "[tok][D]", true},
    {"bf16", 16, 0, 0, "[D/2][16 tok][2 d]", "[tok/2][D/16][16 d][2 tok]", true},
    // Bytes are q + 128, q within +-127; a value is q * scale. K is rotated (kernels/rotate.h).
    {"int8", 8, 4, 0, "[D/4][16 tok][4 d]", "[tok/4][D/16][16 d][4 tok]"},
    // Nibbles n, of d and of d + 16 in a byte; a value is n * scale + min, both fp16, behind the
    // nibbles of a group: [16 scales][16 mins]. Groups are whole. K is rotated.
    {"int4", 4, 4, 32, "[D/32][4][16 tok][4 d]", "[D/32][tok/4][16 d][4 tok]"},
};
static_assert(sizeof kKVFormatTable == kKVFormats * sizeof(KVFormatRow), "every format has a row");

// EveryKVFormat is KVFormats<0, 1, .., kKVFormats - 1>, from which kernels build their tables.
template <int32_t... kFormats> struct KVFormats {};
template <int32_t kLeft, int32_t... kFormats> struct KVFormatsFrom
    : KVFormatsFrom<kLeft - 1, kLeft - 1, kFormats...> {};
template <int32_t... kFormats> struct KVFormatsFrom<0, kFormats...> {
  using Type = KVFormats<kFormats...>;
};
using EveryKVFormat = KVFormatsFrom<kKVFormats>::Type;

constexpr int32_t kKVUnit = 16;  // tokens

static constexpr int64_t kv_row_bytes(int32_t format, int32_t dim) {
  const KVFormatRow& f = kKVFormatTable[format];
  const int64_t group = f.group == 0 ? dim : f.group, groups = (dim + group - 1) / group;
  return groups * (group * f.bits / 8 + f.scale_bytes);
}

struct KVLayout {  // of one layer group; strides in bytes
  int32_t layers, kv_heads, k_dim, v_dim;
  int32_t k_format, v_format;
  int32_t block_size;     // tokens: 16, 32 or 64
  bool v_aliases_k;       // V is the first v_dim values of K and has no bytes of its own
  int64_t k_unit_stride;  // 16 tokens of one head
  int64_t v_unit_stride;
  int64_t k_head_stride;  // one head's K of one block
  int64_t v_head_stride;
  int64_t v_offset;      // from a layer's K to its V = kv_heads * k_head_stride, or 0: it is K
  int64_t layer_stride;  // v_offset + kv_heads * v_head_stride
  int64_t block_stride;  // layers * layer_stride, rounded up to 4096
};

static inline KVLayout kv_layout(int32_t layers, int32_t kv_heads, int32_t k_dim, int32_t v_dim,
                                 int32_t k_format, int32_t v_format, int32_t block_size,
                                 bool v_aliases_k) {
  KVLayout l = {};
  l.layers = layers;
  l.kv_heads = kv_heads;
  l.k_dim = k_dim;
  l.v_dim = v_dim;
  l.k_format = k_format;
  l.v_format = v_format;
  l.block_size = block_size;
  l.v_aliases_k = v_aliases_k;
  l.k_unit_stride = kKVUnit * kv_row_bytes(k_format, k_dim);
  l.v_unit_stride = v_aliases_k ? l.k_unit_stride : kKVUnit * kv_row_bytes(v_format, v_dim);
  l.k_head_stride = block_size / kKVUnit * l.k_unit_stride;
  l.v_head_stride = block_size / kKVUnit * l.v_unit_stride;
  l.v_offset = v_aliases_k ? 0 : kv_heads * l.k_head_stride;
  l.layer_stride = l.v_offset + kv_heads * l.v_head_stride;
  l.block_stride = (layers * l.layer_stride + 4095) / 4096 * 4096;
  return l;
}

// What keeps pages of `sinks` from having the first tokens of those of `l`, or null.
static inline const char* sinks_problem(const KVLayout& l, const KVLayout& sinks) {
  if (l.k_format != KV_INT4 && l.v_format != KV_INT4) return "expected beside int4 pages";
  if (sinks.k_format != KV_BF16 || sinks.v_format != KV_BF16) return "expected bf16 pages";
  if (sinks.v_aliases_k) return "expected V in pages of its own";
  const bool alike = l.layers == sinks.layers && l.kv_heads == sinks.kv_heads &&
                     l.k_dim == sinks.k_dim && l.v_dim == sinks.v_dim &&
                     l.block_size == sinks.block_size;
  return alike ? nullptr : "expected pages of the same layers, heads, dims and block size";
}

struct KVUnit {  // as offsets from the pages
  int64_t k, v;
};
// The unit that holds a slot of a block, of one kv head in one layer.
static inline KVUnit kv_unit(const KVLayout* l, int32_t block, int32_t layer, int32_t kv_head,
                             int32_t slot) {
  const int64_t begin = block * l->block_stride + layer * l->layer_stride, unit = slot / kKVUnit;
  return {begin + kv_head * l->k_head_stride + unit * l->k_unit_stride,
          begin + l->v_offset + kv_head * l->v_head_stride + unit * l->v_unit_stride};
}

}  // namespace octavo
