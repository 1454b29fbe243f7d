// Python's view of the native interpreter: arrays in, checks (program/checks.h), run without the GIL.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "bind/bindings.h"
#include "pack/pack.h"
#include "program/checks.h"

namespace octavo {
namespace {

template <class T, int N>
using Array = nb::ndarray<T, nb::ndim<N>, nb::c_contig, nb::device::cpu>;
template <class T, int N>
using Const = Array<const T, N>;

constexpr int32_t kMaxWidth = 1 << 24, kMaxRows = 1 << 24;  // sizes of buffers stay inside an int64

class PyProgram {
 public:
  PyProgram(const std::string& isa, ThreadPool& pool, Const<int32_t, 2> records, Const<int32_t, 2> buffers,
            const std::vector<PackedWeight*>& matrices, const std::vector<Const<float, 1>>& vectors,
            const std::vector<std::tuple<KVLayout*, Array<uint8_t, 1>, int>>& groups, Const<float, 2> rope_cos,
            Const<float, 2> rope_sin, int32_t max_rows)
      : pool_(pool) {
    same("records", sizeof(OpRecord) / 4, records.shape(1));
    same("buffers", sizeof(BufferSpec) / 4, buffers.shape(1));
    if (records.shape(0) == 0) refuse("records, at least", 1, 0);
    below("max_rows - 1", (int64_t)max_rows - 1, kMaxRows);
    parts_.ops.resize(records.shape(0));
    std::memcpy(parts_.ops.data(), records.data(), records.nbytes());
    parts_.buffers.resize(buffers.shape(0));
    std::memcpy(parts_.buffers.data(), buffers.data(), buffers.nbytes());
    for (const BufferSpec& b : parts_.buffers) below("buffers width - 1", (int64_t)b.width - 1, kMaxWidth);
    for (const PackedWeight* w : matrices) {
      if (w == nullptr) throw nb::value_error("matrices: expected PackedWeight, got None");
      packed_weights_.push_back(nb::find(w));
      parts_.matrices.push_back(w->weight());
    }
    vector_arrays_ = vectors;
    for (const auto& v : vectors) {
      parts_.vectors.push_back(v.data());
      parts_.vector_sizes.push_back((int64_t)v.shape(0));
    }
    for (const auto& [layout, pages, window] : groups) {
      if (layout == nullptr) throw nb::value_error("groups: expected KVLayout, got None");
      if (window < 0) refuse("groups window, at least", 0, window);
      page_arrays_.push_back(pages);
      if (reinterpret_cast<uintptr_t>(pages.data()) % 64 != 0) throw nb::value_error("pages: expected 64-byte alignment");
      if ((int64_t)pages.shape(0) < layout->block_stride) refuse("pages bytes, at least", layout->block_stride, pages.shape(0));
      parts_.groups.push_back({*layout, pages.data(), window});
      parts_.group_blocks.push_back((int64_t)pages.shape(0) / layout->block_stride);
    }
    same("rope_sin positions", rope_cos.shape(0), rope_sin.shape(0));
    same("rope_sin pairs", rope_cos.shape(1), rope_sin.shape(1));
    parts_.rope_positions = (int64_t)rope_cos.shape(0);
    parts_.rope_half = (int64_t)rope_cos.shape(1);
    if (parts_.rope_positions > kAttentionMaxContext) refuse("rope_cos positions, at most", kAttentionMaxContext, parts_.rope_positions);
    parts_.max_rows = max_rows;
    check_program(parts_);
    program_ = std::make_unique<Program>(&table_for(isa), parts_.ops, parts_.buffers, parts_.matrices, parts_.vectors,
                                         parts_.groups, rope_cos.data(), rope_sin.data(), max_rows, pool.size());
  }

  void run(Const<int32_t, 1> tokens, Const<int32_t, 1> positions, Const<int32_t, 1> row_starts,
           Const<int32_t, 1> write_starts, Const<int32_t, 3> block_tables, Const<int32_t, 1> output_rows, Const<int32_t, 1> wants, int32_t top_k,
           std::optional<Const<uint32_t, 2>> masks, std::optional<Const<int32_t, 1>> edit_starts,
           std::optional<Const<int32_t, 2>> edits, Array<int32_t, 1> argmax, Array<float, 1> log_sum_exp,
           Array<int32_t, 2> top_ids, Array<float, 2> top_logits, Array<float, 2> logits, Array<float, 2> hidden,
           std::optional<Array<uint64_t, 1>> op_ns) {
    Step s{};
    s.rows = (int32_t)tokens.shape(0);
    s.seqs = (int32_t)row_starts.shape(0) - 1;
    s.outputs = (int32_t)output_rows.shape(0);
    s.tokens = tokens.data();
    s.positions = positions.data();
    s.row_starts = row_starts.data();
    s.write_starts = write_starts.data();
    s.block_tables = block_tables.data();
    s.max_blocks = (int32_t)block_tables.shape(2);
    s.output_rows = output_rows.data();
    s.wants = wants.data();
    s.top_k = top_k;
    same("positions", s.rows, positions.shape(0));
    same("block_tables groups", (int64_t)parts_.groups.size(), block_tables.shape(0));
    same("block_tables sequences", s.seqs, block_tables.shape(1));
    same("write_starts", s.seqs, write_starts.shape(0));
    same("wants", s.outputs, wants.shape(0));
    if (masks) {
      same("masks outputs", s.outputs, masks->shape(0));
      same("masks words", (parts_.vocab() + 31) / 32, masks->shape(1));
      s.masks = masks->data();
      s.mask_words = (int64_t)masks->shape(1);
    }
    if (edits.has_value() != edit_starts.has_value()) throw nb::value_error("edits and edit_starts: expected both or none");
    if (edits) {
      same("edits fields", sizeof(Edit) / 4, edits->shape(1));
      same("edit_starts", s.outputs + 1, edit_starts->shape(0));
      s.edit_starts = edit_starts->data();
      s.edits = reinterpret_cast<const Edit*>(edits->data());
    }
    check_step(parts_, s, edits ? (int64_t)edits->shape(0) : 0);
    same("argmax", s.outputs, argmax.shape(0));
    same("log_sum_exp", s.outputs, log_sum_exp.shape(0));
    same("top_ids outputs", s.outputs, top_ids.shape(0));
    same("top_ids", top_k, top_ids.shape(1));
    same("top_logits outputs", s.outputs, top_logits.shape(0));
    same("top_logits", top_k, top_logits.shape(1));
    same("logits width", parts_.vocab(), logits.shape(1));
    same("hidden width", parts_.hidden(), hidden.shape(1));
    same("logits rows", parts_.count(s, kLogits), logits.shape(0));
    same("hidden rows", parts_.count(s, kHidden), hidden.shape(0));
    s.argmax = argmax.data();
    s.log_sum_exp = log_sum_exp.data();
    s.top_ids = top_ids.data();
    s.top_logits = top_logits.data();
    s.logits = logits.data();
    s.hidden = hidden.data();
    if (op_ns) {
      same("op_ns", (int64_t)parts_.ops.size(), op_ns->shape(0));
      s.op_ns = op_ns->data();
    }
    const ReleasedGil released;
    program_->run(pool_, s);
  }

 private:
  ThreadPool& pool_;
  ProgramParts parts_;
  // What the parts point into, held here because the lists that it came in may change.
  std::vector<nb::object> packed_weights_;
  std::vector<Const<float, 1>> vector_arrays_;
  std::vector<Array<uint8_t, 1>> page_arrays_;
  std::unique_ptr<Program> program_;
};

}  // namespace

void bind_program(nb::module_& m) {
  nb::class_<PyProgram>(m, "Program", "The native interpreter of one program; see csrc/program/program.h.")
      .def(nb::init<const std::string&, ThreadPool&, Const<int32_t, 2>, Const<int32_t, 2>, const std::vector<PackedWeight*>&,
                    const std::vector<Const<float, 1>>&, const std::vector<std::tuple<KVLayout*, Array<uint8_t, 1>, int>>&,
                    Const<float, 2>, Const<float, 2>, int32_t>(),
           "isa"_a, "pool"_a, "records"_a.noconvert(), "buffers"_a.noconvert(), "matrices"_a, "vectors"_a.noconvert(),
           "groups"_a.noconvert(), "rope_cos"_a.noconvert(), "rope_sin"_a.noconvert(), "max_rows"_a,
           nb::keep_alive<1, 3>(), nb::keep_alive<1, 9>(), nb::keep_alive<1, 10>())
      .def("run", &PyProgram::run, "tokens"_a.noconvert(), "positions"_a.noconvert(), "row_starts"_a.noconvert(),
           "write_starts"_a.noconvert(), "block_tables"_a.noconvert(), "output_rows"_a.noconvert(),
           "wants"_a.noconvert(), "top_k"_a, "masks"_a.noconvert().none(), "edit_starts"_a.noconvert().none(),
           "edits"_a.noconvert().none(), "argmax"_a.noconvert(), "log_sum_exp"_a.noconvert(), "top_ids"_a.noconvert(), "top_logits"_a.noconvert(),
           "logits"_a.noconvert(), "hidden"_a.noconvert(), "op_ns"_a.noconvert().none());
}

}  // namespace octavo
