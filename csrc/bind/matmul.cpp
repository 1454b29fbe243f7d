// Python's view of packed weights, and of the matmul kernels of one ISA level for tests and
// benchmarks.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <optional>
#include <vector>

#include "bind/bindings.h"
#include "kernels/matmul.h"
#include "pack/pack.h"
#include "thread_pool.h"

namespace octavo {
namespace {

using Bytes = Array<const uint8_t, 1>;
using BytesView = nb::ndarray<nb::numpy, const uint8_t, nb::ndim<1>, nb::c_contig>;
using Rows = nb::ndarray<const float, nb::ndim<2>, nb::device::cpu>;
using RowsOut = nb::ndarray<float, nb::ndim<2>, nb::device::cpu>;
using Vector = Array<const float, 1>;
using VectorOut = Array<float, 1>;

template <typename AnyRows>
void expect_shape(const AnyRows& array, const char* argument, int64_t rows, int64_t cols) {
  const auto text = [](int64_t a, int64_t b) {
    return std::string("(")
        .append(std::to_string(a))
        .append(", ")
        .append(std::to_string(b))
        .append(")");
  };
  expect((int64_t)array.shape(0) == rows && (int64_t)array.shape(1) == cols, argument,
         text(rows, cols), text((int64_t)array.shape(0), (int64_t)array.shape(1)));
  expect(cols <= 1 || array.stride(1) == 1, argument, "rows contiguous in memory",
         "a stride of " + std::to_string(array.stride(1)));
}

// 64-byte aligned packed rows, filled with 0xff (NaN as floats) so that what is not written shows.
struct PackedRows {
  PackedRows(int32_t kind, int64_t rows, int64_t cols)
      : bytes(act_row_bytes(kind, (int32_t)cols) * rows) {
    storage.assign((size_t)bytes + 64, 0xff);
    uint8_t* const data = storage.data() + (64 - (uintptr_t)storage.data() % 64) % 64;
    acts = {data, kind, (int32_t)rows, (int32_t)cols};
  }
  std::vector<uint8_t> storage;
  int64_t bytes;
  Acts acts;
};

int32_t kind_named(const std::string& name) {
  const auto* const found = std::find(std::begin(kActKindNames), std::end(kActKindNames), name);
  expect(found != std::end(kActKindNames), "kind", "A32, ABF16, ABF16X2 or AF32", name);
  return (int32_t)(found - kActKindNames);
}

// The rows a weight is multiplied with: its own kind, or for integer formats ABF16X2 on request.
int32_t kind_for(const Weight& w, const std::optional<std::string>& rows) {
  const int32_t own = act_kind_of(w.format);
  if (!rows) return own;
  const char* const own_name = kActKindNames[own];
  expect(*rows == own_name || (own == A32 && *rows == "ABF16X2"), "rows",
         own == A32 ? "A32 or ABF16X2" : std::string(own_name) + " for " + format_name(w.format),
         *rows);
  return kind_named(*rows);
}

// Rows [row0, row1) and columns from k0 to k1; x is the whole.
void quantize_part(const KernelTable& table, const Rows& x, const Acts& acts, int32_t row0,
                   int32_t row1, int32_t k0, int32_t k1) {
  table.matmul->quantize_rows(x.data() + row0 * x.stride(0) + k0, x.stride(0), &acts, row0, row1,
                              k0, k1);
}

void check_rows(const Rows& x, int32_t kind) {
  expect_shape(x, "x", (int64_t)x.shape(0), (int64_t)x.shape(1));
  expect(x.shape(0) >= 1 && x.shape(1) >= 1, "x", "at least one row and one column",
         "an empty array");
  expect((kind != A32 && kind != ABF16X2) || x.shape(1) % 32 == 0, "x", "a multiple of 32 columns",
         x.shape(1));
}

nb::bytes quantize(const std::string& isa, const Rows& x, const std::string& kind_name,
                   int32_t row_cut, int32_t column_cut) {
  const KernelTable& table = table_for(isa);
  const int32_t kind = kind_named(kind_name);
  check_rows(x, kind);
  PackedRows rows(kind, (int64_t)x.shape(0), (int64_t)x.shape(1));
  const int32_t row_cuts[] = {0, row_cut, rows.acts.rows},
                column_cuts[] = {0, column_cut, rows.acts.cols};
  expect(0 <= row_cut && row_cut <= rows.acts.rows, "row_cut",
         "0 to " + std::to_string(rows.acts.rows), row_cut);
  expect(0 <= column_cut && column_cut <= rows.acts.cols && column_cut % 32 == 0, "column_cut",
         "a multiple of 32 up to " + std::to_string(rows.acts.cols), column_cut);
  {
    const ReleasedGil released;
    for (int i = 0; i < 2; ++i)
      for (int j = 0; j < 2; ++j)
        quantize_part(table, x, rows.acts, row_cuts[i], row_cuts[i + 1], column_cuts[j],
                      column_cuts[j + 1]);
  }
  return nb::bytes((const char*)rows.acts.data, (size_t)rows.bytes);
}

struct Cut {
  int32_t panel0, panel1, tile0, tile1;
};

Cut check_cut(const Weight& w, int64_t rows, int32_t panel0, std::optional<int32_t> panel1,
              int32_t tile0, std::optional<int32_t> tile1) {
  const Cut cut{panel0, panel1.value_or(w.panels), tile0,
                tile1.value_or(tile_count((int32_t)rows))};
  expect(0 <= cut.panel0 && cut.panel0 < cut.panel1 && cut.panel1 <= w.panels, "panel0, panel1",
         "0 <= panel0 < panel1 <= " + std::to_string(w.panels),
         std::to_string(cut.panel0) + ", " + std::to_string(cut.panel1));
  const int32_t tiles = tile_count((int32_t)rows);
  expect(0 <= cut.tile0 && cut.tile0 < cut.tile1 && cut.tile1 <= tiles, "tile0, tile1",
         "0 <= tile0 < tile1 <= " + std::to_string(tiles),
         std::to_string(cut.tile0) + ", " + std::to_string(cut.tile1));
  return cut;
}

void matmul(const std::string& isa, const PackedWeight& weight, const Rows& x, const RowsOut& out,
            const std::optional<Vector>& bias, float scale, const std::optional<Rows>& add,
            int32_t panel0, std::optional<int32_t> panel1, int32_t tile0,
            std::optional<int32_t> tile1, const std::optional<std::string>& rows_kind) {
  const KernelTable& table = table_for(isa);
  const Weight& w = weight.weight();
  const int32_t kind = kind_for(w, rows_kind);
  const int64_t rows = (int64_t)x.shape(0);
  check_rows(x, kind);
  expect((int64_t)x.shape(1) == w.cols, "x", std::to_string(w.cols) + " columns", x.shape(1));
  const Cut cut = check_cut(w, rows, panel0, panel1, tile0, tile1);
  const int64_t last = (int64_t)cut.panel1 * 16,
                columns = (last < w.rows ? last : w.rows) - (int64_t)cut.panel0 * 16;
  expect_shape(out, "out", rows, columns);
  if (bias)
    expect((int64_t)bias->shape(0) == w.rows, "bias", std::to_string(w.rows) + " values",
           bias->shape(0));
  if (add) expect_shape(*add, "add", rows, columns);
  const ReleasedGil released;
  PackedRows packed(kind, rows, w.cols);
  quantize_part(table, x, packed.acts, 0, packed.acts.rows, 0, packed.acts.cols);
  table.matmul->matmul(
      &w, cut.panel0, cut.panel1, &packed.acts, cut.tile0, cut.tile1,
      {bias ? bias->data() : nullptr, scale, add ? add->data() : nullptr, add ? add->stride(0) : 0},
      out.data(), out.stride(0));
}

// Seconds of one call, the best of `repeats`: for benchmarks. All panels, all tiles, packed once.
double time_matmul(const std::string& isa, const PackedWeight& weight, const Rows& x, int repeats,
                   const std::optional<std::string>& rows_kind) {
  const KernelTable& table = table_for(isa);
  const Weight& w = weight.weight();
  const int32_t kind = kind_for(w, rows_kind);
  check_rows(x, kind);
  expect((int64_t)x.shape(1) == w.cols, "x", std::to_string(w.cols) + " columns", x.shape(1));
  expect(repeats >= 1, "repeats", "at least 1", repeats);
  const ReleasedGil released;
  PackedRows packed(kind, (int64_t)x.shape(0), w.cols);
  quantize_part(table, x, packed.acts, 0, packed.acts.rows, 0, packed.acts.cols);
  std::vector<float> out((size_t)packed.acts.rows * (size_t)w.rows);
  double best = 1e30;
  for (int i = 0; i < repeats; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    table.matmul->matmul(&w, 0, w.panels, &packed.acts, 0, tile_count(packed.acts.rows), {},
                         out.data(), w.rows);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    if (took.count() < best) best = took.count();
  }
  return best;
}

// Seconds of packing all rows, the best of `repeats`: for benchmarks.
double time_quantize(const std::string& isa, const Rows& x, const std::string& kind, int repeats) {
  const KernelTable& table = table_for(isa);
  const int32_t act = kind_named(kind);
  check_rows(x, act);
  expect(repeats >= 1, "repeats", "at least 1", repeats);
  const ReleasedGil released;
  PackedRows packed(act, (int64_t)x.shape(0), (int64_t)x.shape(1));
  double best = 1e30;
  for (int i = 0; i < repeats; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    quantize_part(table, x, packed.acts, 0, packed.acts.rows, 0, packed.acts.cols);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    if (took.count() < best) best = took.count();
  }
  return best;
}

void expand_row(const std::string& isa, const PackedWeight& weight, int32_t row,
                const VectorOut& out) {
  const KernelTable& table = table_for(isa);
  const Weight& w = weight.weight();
  expect(row >= 0 && row < w.rows, "row", "0.." + std::to_string(w.rows - 1), row);
  expect((int64_t)out.shape(0) == w.cols, "out", std::to_string(w.cols) + " values", out.shape(0));
  const ReleasedGil released;
  table.matmul->expand_row(&w, row, out.data());
}

PackedWeight* pack(ThreadPool& pool, const Bytes& src, int ggml_type, int64_t rows, int64_t cols,
                   const std::string& format_name, std::shared_ptr<WeightMemory> memory) {
  const int32_t format = format_named(format_name);
  const GgmlBlock& block = ggml_block(ggml_type);
  expect(can_pack(ggml_type, format), "format",
         (block.values == 1 ? "W8, W4S" : std::string(octavo::format_name(block.format))) +
             ", BF16 or F32 for " + block.name,
         format_name);
  expect(cols >= 1 && cols % block.values == 0, "cols",
         "a multiple of " + std::to_string(block.values) + " for " + block.name, cols);
  PackedWeight::bytes_for(rows, cols, format);
  const int64_t bytes = rows * (cols / block.values) * block.bytes;
  expect((int64_t)src.shape(0) == bytes, "src",
         std::to_string(bytes) + " bytes for " + block.name + " (" + std::to_string(rows) + ", " +
             std::to_string(cols) + ")",
         src.shape(0));
  auto packed = std::make_unique<PackedWeight>(rows, cols, format,
                                               std::move(memory));  // the GIL guards `memory`
  const ReleasedGil released;
  pack_weight(pool, src.data(), ggml_type, *packed);
  return packed.release();
}

void adopt(PackedWeight* self, const Bytes& data, int64_t rows, int64_t cols,
           const std::string& format_name) {
  const int32_t format = format_named(format_name);
  const int64_t bytes = PackedWeight::bytes_for(rows, cols, format);
  expect((int64_t)data.shape(0) == bytes, "data", std::to_string(bytes) + " bytes", data.shape(0));
  expect((uintptr_t)data.data() % 64 == 0, "data", "64-byte alignment", "an address that is not");
  new (self) PackedWeight(rows, cols, format, const_cast<uint8_t*>(data.data()));
}

}  // namespace

void bind_matmul(nb::module_& m) {
  nb::class_<WeightMemory>(m, "WeightMemory", "One block of memory that many packed weights share.")
      .def(nb::init<int64_t>(), "nbytes"_a)
      .def_prop_ro("capacity", &WeightMemory::capacity)
      .def_prop_ro("used", &WeightMemory::used);

  nb::class_<PackedWeight>(m, "PackedWeight",
                           "A (rows, cols) matrix in the panels of a WeightFormat.")
      .def("__init__",
           [](PackedWeight* self, int64_t rows, int64_t cols, const std::string& format,
              std::shared_ptr<WeightMemory> memory) {
    new (self) PackedWeight(rows, cols, format_named(format), std::move(memory));
  },
           "rows"_a, "cols"_a, "format"_a, "memory"_a.none() = nb::none(), "All zero.")
      .def("__init__", &adopt, "data"_a.noconvert(), "rows"_a, "cols"_a, "format"_a,
           nb::keep_alive<1, 2>(), "Over bytes packed before; the array is kept alive.")
      .def_prop_ro("rows", [](const PackedWeight& w) { return w.weight().rows; })
      .def_prop_ro("cols", [](const PackedWeight& w) { return w.weight().cols; })
      .def_prop_ro("panels", [](const PackedWeight& w) { return w.weight().panels; })
      .def_prop_ro(
          "format",
          [](const PackedWeight& w) { return std::string(format_name(w.weight().format)); })
      .def_prop_ro("nbytes", &PackedWeight::nbytes)
      .def("view", [](nb::handle_t<PackedWeight> self) {
    const PackedWeight& w = nb::cast<const PackedWeight&>(self);
    return BytesView(w.weight().data, {(size_t)w.nbytes()}, self);
  }, "The packed bytes, read-only; they live as long as the view.");

  m.def("packed_nbytes", [](int64_t rows, int64_t cols, const std::string& format) {
    return PackedWeight::bytes_for(rows, cols, format_named(format));
  }, "rows"_a, "cols"_a, "format"_a, "Bytes that a packed matrix takes.");
  m.def("pack_weight", &pack, "pool"_a, "src"_a.noconvert(), "ggml_type"_a, "rows"_a, "cols"_a,
        "format"_a, "memory"_a.none() = nb::none(), nb::rv_policy::take_ownership,
        "GGUF blocks to panels, on all threads of the pool.");
  m.def("quantize", &quantize, "isa"_a, "x"_a.noconvert(), "kind"_a, nb::kw_only(), "row_cut"_a = 0,
        "column_cut"_a = 0,
        "Rows as packed activations, in a call for each side of the cuts (tests only).");
  m.def(
      "matmul", &matmul, "isa"_a, "weight"_a, "x"_a.noconvert(), "out"_a.noconvert(), nb::kw_only(),
      "bias"_a.noconvert().none() = nb::none(), "scale"_a = 1.0f,
      "add"_a.noconvert().none() = nb::none(), "panel0"_a = 0, "panel1"_a.none() = nb::none(),
      "tile0"_a = 0, "tile1"_a.none() = nb::none(), "rows"_a.none() = nb::none(),
      "x through the weight into out; rows outside the tiles stay as they are. rows: the kind x is packed as (tests only).");
  m.def("time_matmul", &time_matmul, "isa"_a, "weight"_a, "x"_a.noconvert(), "repeats"_a,
        nb::kw_only(), "rows"_a.none() = nb::none(),
        "Seconds of the fastest call on one thread (benchmarks only).");
  m.def("time_quantize", &time_quantize, "isa"_a, "x"_a.noconvert(), "kind"_a, "repeats"_a,
        "Seconds of the fastest packing of all rows on one thread (benchmarks only).");
  m.def("expand_row", &expand_row, "isa"_a, "weight"_a, "row"_a, "out"_a.noconvert(),
        "One row as float32 (tests only).");
}

}  // namespace octavo
