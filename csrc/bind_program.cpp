// Python's view of the thread pool and the native interpreter. Checks every index here, so that program.cpp need not.
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

#include "bindings.h"
#include "matmul_layout.h"
#include "pack.h"
#include "program.h"

namespace octavo {
namespace {

template <class T, int N>
using Array = nb::ndarray<T, nb::ndim<N>, nb::c_contig, nb::device::cpu>;
template <class T, int N>
using Const = Array<const T, N>;

[[noreturn]] void refuse(const std::string& what, int64_t expected, int64_t got) {
  throw nb::value_error((what + ": expected " + std::to_string(expected) + ", got " + std::to_string(got)).c_str());
}
void same(const std::string& what, int64_t expected, int64_t got) {
  if (expected != got) refuse(what, expected, got);
}
void below(const std::string& what, int64_t value, int64_t end) {
  if (value < 0 || value >= end)
    throw nb::value_error((what + ": expected 0 to " + std::to_string(end - 1) + ", got " + std::to_string(value)).c_str());
}

constexpr int32_t kMaxWidth = 1 << 24, kMaxRows = 1 << 24;  // sizes of buffers stay inside an int64

// What the records of a program point at, and what keeps it alive: the lists that it came in may change.
struct Parts {
  std::vector<nb::object> packed_weights;
  std::vector<Const<float, 1>> vector_arrays;
  std::vector<Array<uint8_t, 1>> page_arrays;
  std::vector<OpRecord> ops;
  std::vector<BufferSpec> buffers;
  std::vector<Weight> matrices;
  std::vector<const float*> vectors;
  std::vector<int64_t> vector_sizes;
  std::vector<LayerGroup> groups;
  std::vector<int64_t> group_blocks;
  int64_t rope_positions = 0, rope_half = 0;
};

class RecordChecker {
 public:
  explicit RecordChecker(const Parts& parts) : p_(parts), group_heads_(parts.groups.size()) {}

  void check(const OpRecord& op, const std::string& name) {
    const auto width = [&](const char* field, int32_t buffer) {
      below(name + "." + field, buffer, (int64_t)p_.buffers.size());
      return (int64_t)p_.buffers[buffer].width;
    };
    const auto matrix = [&](int i, int64_t rows, int64_t cols) {
      below(name + ".matrix", op.matrix[i], (int64_t)p_.matrices.size());
      if (rows >= 0) same(name + ".matrix rows", rows, p_.matrices[op.matrix[i]].rows);
      if (cols >= 0) same(name + ".matrix cols", cols, p_.matrices[op.matrix[i]].cols);
    };
    const auto vector = [&](int i, int64_t size) {
      if (op.vector[i] == -1) return;
      below(name + ".vector", op.vector[i], (int64_t)p_.vectors.size());
      same(name + ".vector size", size, p_.vector_sizes[op.vector[i]]);
    };
    switch (op.code) {
      case kEmbed: matrix(0, -1, width("out", op.out)); break;
      case kRmsNorm:
      case kNormQuantize:
        same(name + ".out width", width("x", op.x), width("out", op.out));
        if (op.vector[0] < 0) below(name + ".vector", op.vector[0], (int64_t)p_.vectors.size());
        vector(0, width("x", op.x));
        break;
      case kQuantize: same(name + ".out width", width("x", op.x), width("out", op.out)); break;
      case kMatmul:
        matrix(0, width("out", op.out), width("x", op.x));
        vector(0, width("out", op.out));
        rows_for(op, 0, p_.buffers[op.x].kind, name);
        if (op.add != -1) same(name + ".add width", width("out", op.out), width("add", op.add));
        break;
      case kRope:
        same(name + ".out width", width("x", op.x), width("out", op.out));
        same(name + ".heads x head_dim", width("x", op.x), (int64_t)op.heads * op.head_dim);
        rotary(op, name);
        break;
      case kStoreKV: group(op, name, width("x", op.x), width("y", op.y)); break;
      case kAttend:
      case kAttendQuantize: {
        const KVLayout& l = layout(op, name);
        same(name + ".x width", (int64_t)op.heads * l.k_dim, width("x", op.x));
        same(name + ".out width", (int64_t)op.heads * l.v_dim, width("out", op.out));
        if (op.heads % l.kv_heads != 0 || op.heads / l.kv_heads > kAttentionMaxGroup)
          refuse(name + ".heads of each KV head, at most", kAttentionMaxGroup, op.heads);
        attention(op, l, name);
        break;
      }
      case kSwiGLU:
        same(name + ".x width", width("out", op.out), width("x", op.x));
        same(name + ".y width", width("out", op.out), width("y", op.y));
        break;
      case kGateUp:
        matrix(0, width("out", op.out), width("x", op.x));
        matrix(1, width("out", op.out), width("x", op.x));
        for (int i = 0; i < 2; ++i) rows_for(op, i, p_.buffers[op.x].kind, name);
        break;
      case kQKV: {
        const KVLayout& l = layout(op, name);
        const int64_t rows[] = {(int64_t)op.heads * l.k_dim, (int64_t)l.kv_heads * l.k_dim, (int64_t)l.kv_heads * l.v_dim};
        for (int i = 0; i < 3; ++i) {
          matrix(i, rows[i], width("x", op.x));
          vector(i, rows[i]);
          rows_for(op, i, p_.buffers[op.x].kind, name);
        }
        same(name + ".out width", rows[0], width("out", op.out));
        same(name + ".head_dim", l.k_dim, op.head_dim);
        rotary(op, name);
        break;
      }
      case kHead:
        matrix(0, -1, width("x", op.x));
        vector(0, width("x", op.x));
        rows_for(op, 0, op.row_kind, name);
        break;
      default: refuse(name + ".code, at most", kHead, op.code);
    }
    rows(op, name);
  }

 private:
  const KVLayout& layout(const OpRecord& op, const std::string& name) {
    below(name + ".group", op.group, (int64_t)p_.groups.size());
    const KVLayout& l = p_.groups[op.group].layout;
    below(name + ".layer", op.layer, l.layers);
    return l;
  }
  // The rows that a matrix's kernel reads: integer formats int8 or two bf16 terms, the others their own.
  void rows_for(const OpRecord& op, int i, int32_t kind, const std::string& name) {
    const int32_t format = p_.matrices[op.matrix[i]].format;
    if (!(is_integer_format(format) && kind == ABF16X2)) same(name + ".row kind", act_kind_of(format), kind);
  }
  void group(const OpRecord& op, const std::string& name, int64_t k, int64_t v) {
    const KVLayout& l = layout(op, name);
    same(name + ".x width", (int64_t)l.kv_heads * l.k_dim, k);
    same(name + ".y width", (int64_t)l.kv_heads * l.v_dim, v);
  }
  void rotary(const OpRecord& op, const std::string& name) {
    same(name + ".rotary_dim / 2", p_.rope_half, op.rotary_dim / 2);
    below(name + ".rotary_dim", op.rotary_dim, (int64_t)op.head_dim + 1);
    below(name + ".rope_style", op.rope_style, kRopeHalves + 1);
  }
  // The units of a group's layers are planned once, so their heads are the same; packed rows are cut at whole groups of 32.
  void attention(const OpRecord& op, const KVLayout& l, const std::string& name) {
    int32_t& heads = group_heads_[op.group];
    if (heads == 0) heads = op.heads;
    same(name + ".heads, as in its group's other layers", heads, op.heads);
    if (op.code == kAttendQuantize) same(name + ".out columns of a KV head, modulo 32", 0, op.heads / l.kv_heads * l.v_dim % 32);
    if (!(op.scale > 0.0f && op.scale < 1e6f)) throw nb::value_error((name + ".scale: expected a positive finite number").c_str());
  }
  // Which of an op's buffers hold packed rows; the others hold floats, or are not there (-1).
  void rows(const OpRecord& op, const std::string& name) {
    const auto holds = [&](const char* field, int32_t buffer, bool packed) {
      if (buffer == -1) return;
      below(name + field, buffer, (int64_t)p_.buffers.size());
      if ((p_.buffers[buffer].kind >= 0) != packed)
        throw nb::value_error((name + field + (packed ? ": expected a buffer of packed rows" : ": expected a buffer of float rows")).c_str());
    };
    const int32_t code = op.code;
    holds(".x", op.x, code == kMatmul || code == kGateUp || code == kQKV);
    holds(".y", op.y, false);
    holds(".add", op.add, false);
    holds(".out", op.out, code == kQuantize || code == kNormQuantize || code == kAttendQuantize || code == kGateUp);
  }

  const Parts& p_;
  std::vector<int32_t> group_heads_;  // query heads, 0: no attention yet
};

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
      parts_.packed_weights.push_back(nb::find(w));
      parts_.matrices.push_back(w->weight());
    }
    parts_.vector_arrays = vectors;
    for (const auto& v : vectors) {
      parts_.vectors.push_back(v.data());
      parts_.vector_sizes.push_back((int64_t)v.shape(0));
    }
    for (const auto& [layout, pages, window] : groups) {
      if (layout == nullptr) throw nb::value_error("groups: expected KVLayout, got None");
      if (window < 0) refuse("groups window, at least", 0, window);
      parts_.page_arrays.push_back(pages);
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
    RecordChecker checker(parts_);
    for (size_t i = 0; i < parts_.ops.size(); ++i) checker.check(parts_.ops[i], std::string("op ").append(std::to_string(i)));
    check_ends();
    program_ = std::make_unique<Program>(&table_for(isa), parts_.ops, parts_.buffers, parts_.matrices, parts_.vectors,
                                         parts_.groups, rope_cos.data(), rope_sin.data(), max_rows, pool.size());
  }

  void run(Const<int32_t, 1> tokens, Const<int32_t, 1> positions, Const<int32_t, 1> row_starts,
           Const<int32_t, 3> block_tables, Const<int32_t, 1> output_rows, Const<int32_t, 1> wants, int32_t top_k,
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
    s.block_tables = block_tables.data();
    s.max_blocks = (int32_t)block_tables.shape(2);
    s.output_rows = output_rows.data();
    s.wants = wants.data();
    s.top_k = top_k;
    same("positions", s.rows, positions.shape(0));
    same("block_tables groups", (int64_t)parts_.groups.size(), block_tables.shape(0));
    same("block_tables sequences", s.seqs, block_tables.shape(1));
    same("wants", s.outputs, wants.shape(0));
    check_rows(s);
    check_outputs(s);
    if (masks) {
      same("masks outputs", s.outputs, masks->shape(0));
      same("masks words", (program_->vocab() + 31) / 32, masks->shape(1));
      s.masks = masks->data();
      s.mask_words = (int64_t)masks->shape(1);
    }
    if (edits.has_value() != edit_starts.has_value()) throw nb::value_error("edits and edit_starts: expected both or none");
    if (edits) {
      same("edits fields", sizeof(Edit) / 4, edits->shape(1));
      same("edit_starts", s.outputs + 1, edit_starts->shape(0));
      s.edit_starts = edit_starts->data();
      s.edits = reinterpret_cast<const Edit*>(edits->data());
      check_edits(s, (int64_t)edits->shape(0));
    }
    same("argmax", s.outputs, argmax.shape(0));
    same("log_sum_exp", s.outputs, log_sum_exp.shape(0));
    same("top_ids outputs", s.outputs, top_ids.shape(0));
    same("top_ids", top_k, top_ids.shape(1));
    same("top_logits outputs", s.outputs, top_logits.shape(0));
    same("top_logits", top_k, top_logits.shape(1));
    same("logits width", program_->vocab(), logits.shape(1));
    same("hidden width", program_->hidden(), hidden.shape(1));
    same("logits rows", count(s, kLogits), logits.shape(0));
    same("hidden rows", count(s, kHidden), hidden.shape(0));
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
    nb::gil_scoped_release release;
    program_->run(pool_, s);
  }

 private:
  // A step's tokens are checked against the first op's rows, and its outputs planned for the last op.
  void check_ends() {
    const std::vector<OpRecord>& ops = parts_.ops;
    same("first op's code", kEmbed, ops.front().code);
    same("last op's code", kHead, ops.back().code);
    for (size_t i = 1; i + 1 < ops.size(); ++i)
      if (ops[i].code == kEmbed || ops[i].code == kHead)
        throw nb::value_error("codes: expected one Embed, the first op, and one Head, the last");
  }
  void check_rows(const Step& s) {
    if (s.rows < 1 || s.rows > program_->max_rows()) refuse("tokens, at most", program_->max_rows(), s.rows);
    if (s.seqs < 1) refuse("row_starts, at least", 2, s.seqs + 1);
    same("row_starts[0]", 0, s.row_starts[0]);
    same("row_starts[-1]", s.rows, s.row_starts[s.seqs]);
    for (int32_t row = 0; row < s.rows; ++row) {
      below("tokens", s.tokens[row], embedding_rows());
      below("positions", s.positions[row], parts_.rope_positions);
    }
    for (int32_t seq = 0; seq < s.seqs; ++seq) {
      const int32_t begin = s.row_starts[seq], end = s.row_starts[seq + 1];
      if (end <= begin || end > s.rows) refuse("row_starts, above", begin, end);
      for (int32_t row = begin + 1; row < end; ++row)
        same("positions of a sequence, consecutive", s.positions[row - 1] + 1, s.positions[row]);
      for (size_t g = 0; g < parts_.groups.size(); ++g) check_blocks(s, seq, (int32_t)g, s.positions[begin], s.positions[end - 1]);
    }
  }

  // Blocks that hold what some row sees or writes; a windowed group may have given back the ones before.
  void check_blocks(const Step& s, int32_t seq, int32_t group, int32_t first_position, int32_t last_position) {
    const LayerGroup& g = parts_.groups[group];
    const int32_t size = g.layout.block_size, last = last_position / size;
    if (last >= s.max_blocks) refuse("block_tables blocks, above", last, s.max_blocks);
    const int32_t seen = g.window > 0 && first_position >= g.window ? first_position - g.window + 1 : 0;
    const int32_t* table = s.block_tables + ((int64_t)group * s.seqs + seq) * s.max_blocks;
    for (int32_t b = seen / size; b <= last; ++b) below("block_tables", table[b], parts_.group_blocks[group]);
  }

  void check_outputs(const Step& s) {
    if (s.top_k < 0 || s.top_k > kMaxTopK) refuse("top_k, at most", kMaxTopK, s.top_k);
    for (int32_t i = 0; i < s.outputs; ++i) {
      below("output_rows", s.output_rows[i], s.rows);
      below("wants", s.wants[i], kHidden + 1);
    }
  }

  void check_edits(const Step& s, int64_t edits) {
    same("edit_starts[0]", 0, s.edit_starts[0]);
    same("edit_starts[-1]", edits, s.edit_starts[s.outputs]);
    for (int32_t i = 0; i < s.outputs; ++i) {
      if (s.edit_starts[i + 1] < s.edit_starts[i]) refuse("edit_starts, at least", s.edit_starts[i], s.edit_starts[i + 1]);
      for (int32_t e = s.edit_starts[i]; e < s.edit_starts[i + 1]; ++e) {
        below("edits token", s.edits[e].token, program_->vocab());
        if (e > s.edit_starts[i] && s.edits[e].token <= s.edits[e - 1].token)
          refuse("edits tokens of an output, above", s.edits[e - 1].token, s.edits[e].token);
      }
    }
  }

  int64_t embedding_rows() const { return parts_.matrices[parts_.ops.front().matrix[0]].rows; }
  static int64_t count(const Step& s, int32_t want) {
    int64_t n = 0;
    for (int32_t i = 0; i < s.outputs; ++i) n += s.wants[i] == want;
    return n;
  }

  ThreadPool& pool_;
  Parts parts_;
  std::unique_ptr<Program> program_;
};

}  // namespace

void bind_program(nb::module_& m) {
  m.def("usable_cpus", &usable_cpus, "Physical cores that affinity and cgroup quota allow, at least 1.");

  nb::class_<ThreadPool>(m, "ThreadPool", "A team of threads that run a program together; asleep when idle.")
      .def(nb::init<int>(), "threads"_a)
      .def_prop_ro("size", &ThreadPool::size)
      .def("run_barriers",
           [](ThreadPool& pool, int64_t rounds) {
             // Each thread adds its number between barriers; a lost or early thread changes the sums. For tests.
             struct Context { ThreadPool* pool; int64_t rounds; std::vector<int64_t> cells; int64_t wrong; };
             Context c{&pool, rounds, std::vector<int64_t>((size_t)pool.size() * 16), 0};
             nb::gil_scoped_release release;
             pool.run([](void* context, int thread) noexcept {
               auto& c = *static_cast<Context*>(context);
               for (int64_t r = 1; r <= c.rounds; ++r) {
                 c.cells[(size_t)thread * 16] = r;
                 c.pool->barrier();
                 if (thread == 0)
                   for (int t = 0; t < c.pool->size(); ++t) c.wrong += c.cells[(size_t)t * 16] != r;
                 c.pool->barrier();
               }
             }, &c);
             return c.wrong;
           },
           "rounds"_a, "How often a thread was seen out of step in this many rounds: 0 if barriers hold.");

  nb::class_<PyProgram>(m, "Program", "The native interpreter of one program; see csrc/program.h.")
      .def(nb::init<const std::string&, ThreadPool&, Const<int32_t, 2>, Const<int32_t, 2>, const std::vector<PackedWeight*>&,
                    const std::vector<Const<float, 1>>&, const std::vector<std::tuple<KVLayout*, Array<uint8_t, 1>, int>>&,
                    Const<float, 2>, Const<float, 2>, int32_t>(),
           "isa"_a, "pool"_a, "records"_a.noconvert(), "buffers"_a.noconvert(), "matrices"_a, "vectors"_a.noconvert(),
           "groups"_a.noconvert(), "rope_cos"_a.noconvert(), "rope_sin"_a.noconvert(), "max_rows"_a,
           nb::keep_alive<1, 3>(), nb::keep_alive<1, 9>(), nb::keep_alive<1, 10>())
      .def("run", &PyProgram::run, "tokens"_a.noconvert(), "positions"_a.noconvert(), "row_starts"_a.noconvert(),
           "block_tables"_a.noconvert(), "output_rows"_a.noconvert(), "wants"_a.noconvert(), "top_k"_a,
           "masks"_a.noconvert().none(), "edit_starts"_a.noconvert().none(), "edits"_a.noconvert().none(),
           "argmax"_a.noconvert(), "log_sum_exp"_a.noconvert(), "top_ids"_a.noconvert(), "top_logits"_a.noconvert(),
           "logits"_a.noconvert(), "hidden"_a.noconvert(), "op_ns"_a.noconvert().none());
}

}  // namespace octavo
