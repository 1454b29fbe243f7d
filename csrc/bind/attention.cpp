// Python's view of paged attention: the KV formats and layout, the page writers and attention of
// one sequence (for tests and storage).
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "bind/attention_split.h"
#include "bind/bindings.h"
#include "kernels/attention.h"

namespace octavo {
namespace {

constexpr int64_t kMaxBlockBytes = int64_t{1} << 40;

int32_t format_of(const char* name, const std::string& text) {
  std::string names;
  for (int32_t format = 0; format < kKVFormats; format++) {
    const char* known = kKVFormatTable[format].name;
    if (text == known) return format;
    names += std::string(names.empty() ? "" : format + 1 < kKVFormats ? ", " : " or ") + known;
  }
  refuse(name, names, text);
}

KVLayout make_layout(int32_t layers, int32_t kv_heads, int32_t k_dim, int32_t v_dim,
                     const std::string& k_format, const std::string& v_format, int32_t block_size,
                     bool v_aliases_k) {
  const auto good_dim = [](int32_t d) { return d >= 16 && d <= kAttentionMaxDim && d % 16 == 0; };
  expect(layers >= 1, "layers", "at least 1", layers);
  expect(kv_heads >= 1, "kv_heads", "at least 1", kv_heads);
  const std::string dims = "a multiple of 16 from 16 to " + std::to_string(kAttentionMaxDim);
  expect(good_dim(k_dim), "k_dim", dims, k_dim);
  expect(good_dim(v_dim), "v_dim", dims, v_dim);
  expect(block_size == 16 || block_size == 32 || block_size == 64, "block_size", "16, 32 or 64",
         block_size);
  const int32_t k = format_of("k_format", k_format), v = format_of("v_format", v_format);
  if (v_aliases_k) {
    if (k != v || !kKVFormatTable[k].gives_v)
      throw nb::value_error("v_aliases_k: expected K and V of one format that gives V");
    expect(v_dim <= k_dim, "v_dim", "at most k_dim where V is a part of K", v_dim);
  }
  // Larger sizes would leave int64 when strides are multiplied.
  const int64_t head_bytes = block_size * (kv_row_bytes(k, k_dim) + kv_row_bytes(v, v_dim));
  expect(kv_heads <= kMaxBlockBytes / head_bytes / layers, "layers and kv_heads",
         "blocks below 2^40 bytes", kv_heads);
  return kv_layout(layers, kv_heads, k_dim, v_dim, k, v, block_size, v_aliases_k);
}

// The table of formats in Python: of each its name, bits, scale_bytes, group, k_layout,
// v_layout and gives_v.
nb::tuple kv_formats() {
  nb::list rows;
  for (const KVFormatRow& f : kKVFormatTable)
    rows.append(
        nb::make_tuple(f.name, f.bits, f.scale_bytes, f.group, f.k_layout, f.v_layout, f.gives_v));
  return nb::tuple(rows);
}

// Every block that positions [begin, end) lie in must be in the table and in the pages.
void check_blocks(const KVLayout& layout, const Array<const int32_t, 1>& table, int64_t begin,
                  int64_t end, int64_t pages_bytes) {
  const int64_t blocks = (end + layout.block_size - 1) / layout.block_size,
                pages = pages_bytes / layout.block_stride;
  expect((int64_t)table.shape(0) >= blocks, "block_table", std::to_string(blocks) + " blocks",
         table.shape(0));
  for (int64_t i = begin / layout.block_size; i < blocks; i++) {
    const int32_t block = table.data()[i];
    expect(block >= 0 && block < pages, "block_table", "ids below " + std::to_string(pages), block);
  }
}

void check_pages(const KVLayout& layout, const void* pages, int64_t bytes, int32_t layer) {
  expect((uintptr_t)pages % 64 == 0, "pages", "64-byte alignment",
         (int64_t)((uintptr_t)pages % 64));
  expect(bytes % layout.block_stride == 0, "pages",
         "a multiple of " + std::to_string(layout.block_stride) + " bytes", bytes);
  expect(layer >= 0 && layer < layout.layers, "layer", "0.." + std::to_string(layout.layers - 1),
         layer);
}

const AttentionKernels& attention_of(const std::string& isa) {
  const AttentionKernels* kernels = table_for(isa).attention;
  if (kernels == nullptr)
    throw nb::value_error(("isa: no attention kernels at level " + isa).c_str());
  return *kernels;
}

// positions (tokens); k (tokens, kv_heads, k_dim); v (tokens, kv_heads, v_dim), none where it is a
// part of k
void write_kv(const std::string& isa, Array<uint8_t, 1> pages, const KVLayout& layout,
              Array<const int32_t, 1> block_table, Array<const int32_t, 1> positions, int32_t layer,
              Array<const float, 3> k, const std::optional<Array<const float, 3>>& given_v) {
  const AttentionKernels& kernels = attention_of(isa);
  const int64_t tokens = positions.shape(0);
  check_pages(layout, pages.data(), pages.size(), layer);
  if (given_v.has_value() == layout.v_aliases_k)
    throw nb::value_error(layout.v_aliases_k ? "v: expected None, for it is a part of k"
                                             : "v: expected an array, got None");
  const Array<const float, 3>& v = given_v ? *given_v : k;
  const int32_t v_dim = given_v ? layout.v_dim : layout.k_dim;
  expect((int64_t)k.shape(0) == tokens, "k", std::to_string(tokens) + " tokens", k.shape(0));
  expect((int64_t)v.shape(0) == tokens, "v", std::to_string(tokens) + " tokens", v.shape(0));
  expect((int32_t)k.shape(1) == layout.kv_heads, "k", std::to_string(layout.kv_heads) + " heads",
         k.shape(1));
  expect((int32_t)v.shape(1) == layout.kv_heads, "v", std::to_string(layout.kv_heads) + " heads",
         v.shape(1));
  expect((int32_t)k.shape(2) == layout.k_dim, "k", std::to_string(layout.k_dim) + " dims",
         k.shape(2));
  expect((int32_t)v.shape(2) == v_dim, "v", std::to_string(v_dim) + " dims", v.shape(2));
  for (int64_t i = 0; i < tokens; i++) {
    const int64_t position = positions.data()[i];
    expect(position >= 0, "positions", "at least 0", position);
    check_blocks(layout, block_table, position, position + 1, pages.size());
  }
  const ReleasedGil released;
  for (int64_t i = 0; i < tokens; i++) {
    const int32_t position = positions.data()[i],
                  block = block_table.data()[position / layout.block_size];
    for (int32_t head = 0; head < layout.kv_heads; head++) {
      const int64_t row = i * layout.kv_heads + head;
      kernels.write_kv(&layout, pages.data(), block, position % layout.block_size, layer, head,
                       k.data() + row * layout.k_dim, v.data() + row * v_dim);
    }
  }
}

// The layout of sinks, their pages and their block.
using Sinks = std::tuple<const KVLayout*, Array<const uint8_t, 1>, int32_t>;

KVSinks check_sinks(const KVLayout& layout, int32_t layer, int32_t window, const Sinks& sinks) {
  const auto& [sinks_layout, pages, block] = sinks;
  expect(window == 0, "window", "0 beside sinks", window);
  if (sinks_layout == nullptr) throw nb::value_error("sinks: expected a KVLayout, got None");
  if (const char* problem = sinks_problem(layout, *sinks_layout))
    throw nb::value_error((std::string("sinks: ") + problem).c_str());
  check_pages(*sinks_layout, pages.data(), pages.size(), layer);
  const int64_t blocks = pages.size() / sinks_layout->block_stride;
  expect(block >= 0 && block < blocks, "sinks", "a block below " + std::to_string(blocks), block);
  return {sinks_layout, pages.data(), block, layout.block_size};
}

// q (rows, q_heads, k_dim) -> out (rows, q_heads, v_dim); row r is at first_position + r
void attention(const std::string& isa, Array<float, 3> out, Array<const float, 3> q,
               Array<const uint8_t, 1> pages, const KVLayout& layout,
               Array<const int32_t, 1> block_table, int32_t layer, int32_t first_position,
               float scale, int32_t window, float softcap,
               std::optional<Array<const float, 1>> slopes, bool rounded_slopes,
               std::optional<Array<const float, 1>> sink_logits, bool split_chunks,
               bool shared_chunks, const std::optional<Sinks>& sinks, int32_t beginning,
               std::optional<Array<const float, 3>> far_q) {
  const AttentionKernels& kernels = attention_of(isa);
  const int64_t rows = q.shape(0), heads = q.shape(1), group = heads / layout.kv_heads;
  check_pages(layout, pages.data(), pages.size(), layer);
  expect(rows >= 1, "q", "at least 1 row", rows);
  expect(heads == group * layout.kv_heads && group >= 1 && group <= kAttentionMaxGroup, "q",
         "1 to " + std::to_string(kAttentionMaxGroup) + " times " +
             std::to_string(layout.kv_heads) + " heads",
         heads);
  expect((int32_t)q.shape(2) == layout.k_dim, "q", std::to_string(layout.k_dim) + " dims",
         q.shape(2));
  expect((int64_t)out.shape(0) == rows, "out", std::to_string(rows) + " rows", out.shape(0));
  expect((int64_t)out.shape(1) == heads, "out", std::to_string(heads) + " heads", out.shape(1));
  expect((int32_t)out.shape(2) == layout.v_dim, "out", std::to_string(layout.v_dim) + " dims",
         out.shape(2));
  expect(first_position >= 0, "first_position", "at least 0", first_position);
  expect(first_position + rows <= kAttentionMaxContext, "first_position and q",
         "positions below 2^30", first_position + rows);
  expect(window >= 0, "window", "0 (all) or more", window);
  const int32_t most = window > 0 ? std::max(0, kAttentionMaxContext - window) : 0;
  expect(beginning >= 0 && beginning <= most, "beginning", "0 to " + std::to_string(most),
         beginning);
  if (beginning > 0 && !(far_q && far_q->size() == q.size() && far_q->shape(1) == q.shape(1)))
    throw nb::value_error("far_q: expected rows like those of q beside a beginning");
  if (!(scale > 0.0f && scale < 1e6f))
    throw nb::value_error("scale: expected a positive finite number");
  if (softcap != 0.0f && !(softcap >= kLeastSoftcap && softcap < 1e6f))
    throw nb::value_error("softcap: expected 0 (none) or a number from 0.001");
  if (slopes) {
    expect(beginning == 0, "beginning", "0 beside slopes", beginning);
    expect((int64_t)slopes->shape(0) == heads, "slopes", std::to_string(heads) + " values",
           slopes->shape(0));
    check_slopes(*slopes);
  }
  if (sink_logits)
    expect((int64_t)sink_logits->shape(0) == heads, "sink_logits",
           std::to_string(heads) + " values", sink_logits->shape(0));
  AttentionArgs args = {.layout = &layout,
                        .pages = pages.data(),
                        .block_table = block_table.data(),
                        .q = q.data(),
                        .q_stride = heads * layout.k_dim,
                        .out_stride = heads * layout.v_dim,
                        .layer = layer,
                        .group = (int32_t)group,
                        .first_position = first_position,
                        .rows = (int32_t)rows,
                        .window = window,
                        .beginning = beginning,
                        .scale = scale,
                        .rounded_slopes = rounded_slopes,
                        .softcap = softcap};
  if (sinks) args.sinks = check_sinks(layout, layer, window, *sinks);
  const int64_t end = first_position + rows,
                seen = std::max(attention_first_visible(&args, 0), args.sinks.end);
  check_blocks(layout, block_table, seen, end, pages.size());
  if (seen > 0)
    check_blocks(layout, block_table, 0, std::min<int64_t>(beginning, seen), pages.size());
  const ReleasedGil released;
  // 0xff.. is a NaN: nothing may be read from scratch before it is written.
  std::vector<uint8_t> memory((size_t)attention_scratch_bytes(&layout) + 64, 0xff);
  void* scratch = (void*)(((uintptr_t)memory.data() + 63) / 64 * 64);
  for (int32_t head = 0; head < layout.kv_heads; head++) {
    args.q = q.data() + head * group * layout.k_dim;
    if (slopes) args.slopes = slopes->data() + head * group;
    if (beginning > 0) args.far_q = far_q->data() + head * group * layout.k_dim;
    if (sink_logits) args.sink_logits = sink_logits->data() + head * group;
    float* head_out = out.data() + head * group * layout.v_dim;
    if (split_chunks || shared_chunks)
      attend_split(kernels, args, head, shared_chunks, head_out, scratch);
    else kernels.attend_rows(&args, 0, args.rows, head, head_out, scratch);
  }
}

}  // namespace

void bind_attention(nb::module_& m) {
  nb::class_<KVLayout>(m, "KVLayout", "Strides, in bytes, of the KV pages of one layer group.")
      .def("__init__",
           [](KVLayout* self, int32_t layers, int32_t kv_heads, int32_t k_dim, int32_t v_dim,
              const std::string& k_format, const std::string& v_format, int32_t block_size,
              bool v_aliases_k) {
    new (self) KVLayout(
        make_layout(layers, kv_heads, k_dim, v_dim, k_format, v_format, block_size, v_aliases_k));
  },
           "layers"_a, "kv_heads"_a, "k_dim"_a, "v_dim"_a, "k_format"_a, "v_format"_a,
           "block_size"_a, "v_aliases_k"_a = false)
      .def_ro("layers", &KVLayout::layers)
      .def_ro("kv_heads", &KVLayout::kv_heads)
      .def_ro("k_dim", &KVLayout::k_dim)
      .def_ro("v_dim", &KVLayout::v_dim)
      .def_prop_ro("k_format", [](const KVLayout& l) { return kKVFormatTable[l.k_format].name; })
      .def_prop_ro("v_format", [](const KVLayout& l) { return kKVFormatTable[l.v_format].name; })
      .def_ro("block_size", &KVLayout::block_size)
      .def_ro("v_aliases_k", &KVLayout::v_aliases_k)
      .def_ro("k_head_stride", &KVLayout::k_head_stride)
      .def_ro("v_head_stride", &KVLayout::v_head_stride)
      .def_ro("v_offset", &KVLayout::v_offset)
      .def_ro("layer_stride", &KVLayout::layer_stride)
      .def_ro("block_stride", &KVLayout::block_stride);
  m.attr("KV_FORMATS") = kv_formats();
  m.attr("ATTENTION_TILE") = kAttentionTile;
  m.attr("ATTENTION_CHUNK") = kAttentionChunk;
  m.attr("MAX_QUERY_GROUP") = kAttentionMaxGroup;
  m.attr("MAX_HEAD_DIM") = kAttentionMaxDim;
  m.attr("MAX_CONTEXT") = kAttentionMaxContext;
  m.def("write_kv", &write_kv, "isa"_a, "pages"_a.noconvert(), "layout"_a,
        "block_table"_a.noconvert(), "positions"_a.noconvert(), "layer"_a, "k"_a.noconvert(),
        "v"_a.noconvert().none(), "Write K and V of one sequence's tokens into their pages.");
  m.def("attention", &attention, "isa"_a, "out"_a.noconvert(), "q"_a.noconvert(),
        "pages"_a.noconvert(), "layout"_a, "block_table"_a.noconvert(), "layer"_a,
        "first_position"_a, "scale"_a, "window"_a = 0, "softcap"_a = 0.0f,
        "slopes"_a.noconvert().none() = nb::none(), "rounded_slopes"_a = false,
        "sink_logits"_a.noconvert().none() = nb::none(), "split_chunks"_a = false,
        "shared_chunks"_a = false, "sinks"_a = nb::none(), "beginning"_a = 0,
        "far_q"_a.noconvert().none() = nb::none(),
        "Attention of consecutive rows of one sequence over its pages.");
}

}  // namespace octavo
