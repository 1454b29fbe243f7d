// Python's view of the native interpreter: arrays in, checks (program/checks.h, program/step.h),
// run without the GIL.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "bind/attributes.h"
#include "bind/bindings.h"
#include "pack/pack.h"
#include "program/checks.h"
#include "program/row_ops.h"

namespace octavo {
namespace {

template <class T, int N>
using Const = Array<const T, N>;

using RopeArrays =
    std::vector<std::pair<Const<float, 2>, Const<float, 2>>>;  // cos and sin, (context, half)

using SlopeArrays = std::vector<std::pair<Const<float, 1>, bool>>;  // of heads, and whether rounded

// Of each layer group its layout and pages, the window (0: none) and the beginning seen beside it,
// and which group its sinks are in.
using Groups =
    std::vector<std::tuple<KVLayout*, Array<uint8_t, 1>, int32_t, int32_t, std::optional<int32_t>>>;

// Of each table in a file its bytes, GGML's type, rows and columns.
using Tables = std::vector<std::tuple<Const<uint8_t, 1>, int32_t, int32_t, int32_t>>;

constexpr int32_t kMaxWidth = 1 << 24, kMaxRows = 1 << 24;  // sizes of buffers stay inside an int64

class PyProgram {
 public:
  PyProgram(const std::string& isa, ThreadPool& pool, Const<int32_t, 2> records,
            Const<int32_t, 2> buffers, const std::vector<PackedWeight*>& matrices,
            const std::vector<Const<float, 1>>& vectors, const Groups& groups,
            const RopeArrays& rope_tables, const SlopeArrays& slopes, int32_t max_rows,
            const Tables& tables, bool rope_by_row)
      : pool_(pool) {
    ProgramParts parts;
    same("records", sizeof(OpRecord) / 4, records.shape(1));
    same("buffers", sizeof(BufferSpec) / 4, buffers.shape(1));
    if (records.shape(0) == 0) refuse("records, at least", 1, 0);
    below("max_rows - 1", (int64_t)max_rows - 1, kMaxRows);
    parts.ops.resize(records.shape(0));
    std::memcpy(parts.ops.data(), records.data(), records.nbytes());
    parts.buffers.resize(buffers.shape(0));
    std::memcpy(parts.buffers.data(), buffers.data(), buffers.nbytes());
    for (const BufferSpec& b : parts.buffers)
      below("buffers width - 1", (int64_t)b.width - 1, kMaxWidth);
    for (const PackedWeight* w : matrices) {
      if (w == nullptr) throw nb::value_error("matrices: expected PackedWeight, got None");
      packed_weights_.push_back(nb::find(w));
      parts.matrices.push_back(w->weight());
    }
    table_arrays_ = tables;
    for (const auto& [data, type, rows, cols] : tables) {
      const GgmlBlock& block = ggml_block(type);
      if (rows < 1 || cols < 1 || cols % block.values != 0)
        throw nb::value_error("tables: expected rows of whole blocks");
      const int64_t blocks = cols / block.values, bytes = blocks * block.bytes;
      same("tables bytes", rows * bytes, data.shape(0));
      parts.tables.push_back({data.data(), type, rows, cols, bytes, blocks});
    }
    vector_arrays_ = vectors;
    for (const auto& v : vectors) {
      parts.vectors.push_back(v.data());
      parts.vector_sizes.push_back((int64_t)v.shape(0));
    }
    for (const auto& [layout, pages, window, beginning, sinks] : groups) {
      if (layout == nullptr) throw nb::value_error("groups: expected KVLayout, got None");
      if (window < 0) refuse("groups window, at least", 0, window);
      within("groups beginning, beside a window", beginning, 0,
             window > 0 ? std::max(0, kAttentionMaxContext - window) : 0);
      page_arrays_.push_back(pages);
      if (reinterpret_cast<uintptr_t>(pages.data()) % 64 != 0)
        throw nb::value_error("pages: expected 64-byte alignment");
      if ((int64_t)pages.shape(0) < layout->block_stride)
        refuse("pages bytes, at least", layout->block_stride, pages.shape(0));
      const int64_t blocks = (int64_t)pages.shape(0) / layout->block_stride;
      parts.groups.push_back(
          {*layout, pages.data(), window, beginning, blocks, sinks.value_or(-1)});
    }
    for (const auto& group : groups)
      if (const std::optional<int32_t> sinks = std::get<4>(group)) {
        below("groups sinks", *sinks, (int64_t)groups.size());
        if (parts.groups[*sinks].is_sinks)
          throw nb::value_error("groups sinks: expected another group for each");
        parts.groups[*sinks].is_sinks = true;
      }
    rope_arrays_ = rope_tables;
    parts.rope_by_row = rope_by_row;
    const int64_t turned = rope_by_row           ? max_rows
                           : rope_tables.empty() ? kAttentionMaxContext
                                                 : (int64_t)rope_tables[0].first.shape(0);
    parts.context = rope_by_row ? kAttentionMaxContext : turned;
    within("rope_tables positions", parts.context, 0, kAttentionMaxContext);
    for (const auto& [cos, sin] : rope_tables) {
      same("rope_tables cos positions", turned, cos.shape(0));
      same("rope_tables sin positions", turned, sin.shape(0));
      same("rope_tables sin pairs", cos.shape(1), sin.shape(1));
      below("rope_tables pairs", cos.shape(1), kMaxWidth);
      parts.rope_tables.push_back({cos.data(), sin.data(), (int32_t)cos.shape(1)});
    }
    slope_arrays_ = slopes;
    for (const auto& [of_heads, rounded] : slopes) {
      check_slopes(of_heads);
      parts.slopes.push_back({of_heads.data(), (int32_t)of_heads.shape(0), rounded});
    }
    parts.max_rows = max_rows;
    check_program(parts);
    program_ = std::make_unique<Program>(&table_for(isa), std::move(parts), pool.size());
  }

  // `batch` and `output` have the attributes of octavo.batch.Batch and StepOutput.
  void run(nb::handle batch, nb::handle output) {
    Attributes batch_arrays(batch), output_arrays(output);
    const Step step = step_of(batch_arrays, output_arrays, program_->parts());
    const ReleasedGil released;
    program_->run(pool_, step);
  }

 private:
  ThreadPool& pool_;
  // What the parts point into, held here because the lists that it came in may change.
  std::vector<nb::object> packed_weights_;
  Tables table_arrays_;
  std::vector<Const<float, 1>> vector_arrays_;
  std::vector<Array<uint8_t, 1>> page_arrays_;
  RopeArrays rope_arrays_;
  SlopeArrays slope_arrays_;
  std::unique_ptr<Program> program_;
};

template <size_t kNames>
nb::tuple names_of(const char* const (&names)[kNames]) {
  nb::list found;
  for (const char* name : names) found.append(name);
  return nb::tuple(found);
}
nb::tuple op_names() {
  nb::list found(names_of(kOpNames));
  for (const RowOp& op : kRowOps) found.append(op.name);
  return nb::tuple(found);
}
// (name, type) of each, for numpy.dtype.
template <size_t kFields>
nb::tuple fields_of(const RecordField (&fields)[kFields]) {
  nb::list found;
  for (const RecordField& field : fields) {
    const std::string count = field.count > 1 ? std::to_string(field.count) : "";
    found.append(nb::make_tuple(field.name, count + field.type));
  }
  return nb::tuple(found);
}

}  // namespace

void bind_program(nb::module_& m) {
  m.attr("OPS") = op_names();
  m.attr("RECORD_FIELDS") = fields_of(kRecordFields);
  m.attr("BUFFER_FIELDS") = fields_of(kBufferFields);
  m.attr("ROPE_STYLES") = names_of(kRopeStyleNames);
  m.attr("NORMS") = names_of(kNormNames);
  m.attr("ACTIVATIONS") = names_of(kActivationNames);
  m.attr("ROUTE_SCORES") = names_of(kRouteScoreNames);
  m.attr("MAX_EXPERTS") = kMaxExperts;
  m.attr("ROW_KINDS") = names_of(kActKindNames);
  m.attr("WANTS") = names_of(kWantNames);
  m.attr("PANEL_ROWS") = kPanelRows;
  m.attr("GROUP_COLUMNS") = kGroupColumns;
  nb::class_<PyProgram>(m, "Program",
                        "The native interpreter of one program; see csrc/program/program.h.")
      .def(nb::init<const std::string&, ThreadPool&, Const<int32_t, 2>, Const<int32_t, 2>,
                    const std::vector<PackedWeight*>&, const std::vector<Const<float, 1>>&,
                    const Groups&, const RopeArrays&, const SlopeArrays&, int32_t, const Tables&,
                    bool>(),
           "isa"_a, "pool"_a, "records"_a.noconvert(), "buffers"_a.noconvert(), "matrices"_a,
           "vectors"_a.noconvert(), "groups"_a.noconvert(), "rope_tables"_a.noconvert(),
           "slopes"_a.noconvert(), "max_rows"_a, "tables"_a.noconvert() = Tables{},
           "rope_by_row"_a = false, nb::keep_alive<1, 3>())
      .def("run", &PyProgram::run, "batch"_a, "output"_a);
}

}  // namespace octavo
