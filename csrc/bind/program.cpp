// Python's view of the native interpreter: arrays in, checks (program/checks.h, program/step.h), run without the GIL.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <cstring>
#include <string>
#include <vector>

#include "bind/attributes.h"
#include "bind/bindings.h"
#include "pack/pack.h"
#include "program/checks.h"

namespace octavo {
namespace {

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
    ProgramParts parts;
    same("records", sizeof(OpRecord) / 4, records.shape(1));
    same("buffers", sizeof(BufferSpec) / 4, buffers.shape(1));
    if (records.shape(0) == 0) refuse("records, at least", 1, 0);
    below("max_rows - 1", (int64_t)max_rows - 1, kMaxRows);
    parts.ops.resize(records.shape(0));
    std::memcpy(parts.ops.data(), records.data(), records.nbytes());
    parts.buffers.resize(buffers.shape(0));
    std::memcpy(parts.buffers.data(), buffers.data(), buffers.nbytes());
    for (const BufferSpec& b : parts.buffers) below("buffers width - 1", (int64_t)b.width - 1, kMaxWidth);
    for (const PackedWeight* w : matrices) {
      if (w == nullptr) throw nb::value_error("matrices: expected PackedWeight, got None");
      packed_weights_.push_back(nb::find(w));
      parts.matrices.push_back(w->weight());
    }
    vector_arrays_ = vectors;
    for (const auto& v : vectors) {
      parts.vectors.push_back(v.data());
      parts.vector_sizes.push_back((int64_t)v.shape(0));
    }
    for (const auto& [layout, pages, window] : groups) {
      if (layout == nullptr) throw nb::value_error("groups: expected KVLayout, got None");
      if (window < 0) refuse("groups window, at least", 0, window);
      page_arrays_.push_back(pages);
      if (reinterpret_cast<uintptr_t>(pages.data()) % 64 != 0) throw nb::value_error("pages: expected 64-byte alignment");
      if ((int64_t)pages.shape(0) < layout->block_stride) refuse("pages bytes, at least", layout->block_stride, pages.shape(0));
      parts.groups.push_back({*layout, pages.data(), window, (int64_t)pages.shape(0) / layout->block_stride});
    }
    same("rope_sin positions", rope_cos.shape(0), rope_sin.shape(0));
    same("rope_sin pairs", rope_cos.shape(1), rope_sin.shape(1));
    parts.rope_positions = (int64_t)rope_cos.shape(0);
    parts.rope_half = (int64_t)rope_cos.shape(1);
    if (parts.rope_positions > kAttentionMaxContext) refuse("rope_cos positions, at most", kAttentionMaxContext, parts.rope_positions);
    parts.max_rows = max_rows;
    parts.rope_cos = rope_cos.data();
    parts.rope_sin = rope_sin.data();
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
      .def("run", &PyProgram::run, "batch"_a, "output"_a);
}

}  // namespace octavo
