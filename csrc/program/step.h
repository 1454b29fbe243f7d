// step.h: the arrays of one step, said once: where each lies, its shape, and what its values may
// be.
//
// Comes in: the attributes of a Batch and of a StepOutput (octavo.batch), by name, from whatever
// knows how to get them. Goes out: a Step that may be run. Everything that run_*.cpp index with is
// checked here. Knows nothing of Python.
#pragma once
#include <algorithm>
#include <cfloat>
#include <cstdint>
#include <initializer_list>

#include "kernels/rows.h"
#include "program/checks.h"

namespace octavo {

enum Want : int32_t { kArgmax, kTopK, kLogits, kHidden, kDraw };
constexpr const char* kWantNames[] = {"ARGMAX", "TOP_K", "LOGITS", "HIDDEN",
                                      "DRAW"};  // octavo.batch.Want
constexpr int32_t kNumWants = 5;

struct Step {
  int32_t rows, seqs, outputs;
  const int32_t *tokens, *positions;  // (rows,)
  const int32_t* row_starts;          // (seqs + 1,)
  const int32_t* write_starts;        // (seqs,) rows at positions before it store no K and V
  const int32_t* block_tables;        // (groups, seqs, max_blocks)
  int32_t max_blocks;
  const int32_t *output_rows, *wants;  // (outputs,)
  int32_t top_k;
  const uint32_t* masks;  // (outputs, mask_words) or null
  int64_t mask_words;
  const int32_t* edit_starts;  // (outputs + 1,) or null
  const Edit* edits;
  int64_t num_edits;
  const float* temperatures;  // (outputs,) or null; read where kDraw is wanted
  const double* uniforms;     // (outputs,) likewise
  // results
  int32_t* argmax;      // (outputs,)
  float* log_sum_exp;   // (outputs,)
  int32_t* top_ids;     // (outputs, top_k)
  float* top_logits;    // (outputs, top_k)
  float* logits;        // (outputs that want kLogits, vocab), in order
  float* hidden;        // (outputs that want kHidden, hidden), in order
  int32_t* drawn;       // (outputs that want kDraw,), in order
  float* drawn_logits;  // likewise
  uint64_t* op_ns;      // (ops,) nanoseconds of thread 0, or null

  int64_t count(int32_t want) const {
    int64_t n = 0;
    for (int32_t i = 0; i < outputs; ++i) n += wants[i] == want;
    return n;
  }
};

// A dimension as a message names it ("" where an array has one only) and its size; kAny is what the
// array says.
struct Dim {
  const char* name;
  int64_t size;
};
constexpr int64_t kAny = -1;

// `arrays.get(name, pointer, dims)` points at an attribute of the pointer's type and gives the size
// of its last kAny; `arrays.has(name)`: it is not None.
template <class Arrays>
void read_batch(Arrays& arrays, const ProgramParts& p, Step& s) {
  const int64_t rows = arrays.get("tokens", s.tokens, {{"", kAny}});
  arrays.get("positions", s.positions, {{"", rows}});
  const int64_t seqs = arrays.get("row_starts", s.row_starts, {{"", kAny}}) - 1;
  s.max_blocks = (int32_t)arrays.get(
      "block_tables", s.block_tables,
      {{"groups", (int64_t)p.groups.size()}, {"sequences", seqs}, {"blocks", kAny}});
  arrays.get("write_starts", s.write_starts, {{"", seqs}});
  const int64_t outputs = arrays.get("output_rows", s.output_rows, {{"", kAny}});
  arrays.get("wants", s.wants, {{"", outputs}});
  s.top_k = arrays.number("top_k");
  if (arrays.has("masks")) {
    s.mask_words = (p.vocab() + 31) / 32;
    arrays.get("masks", s.masks, {{"outputs", outputs}, {"words", s.mask_words}});
  }
  if (arrays.has("edits") != arrays.has("edit_starts"))
    throw std::invalid_argument("edits and edit_starts: expected both or none");
  if (arrays.has("edits")) {
    s.num_edits = arrays.get("edits", s.edits, {{"", kAny}});
    arrays.get("edit_starts", s.edit_starts, {{"", outputs + 1}});
  }
  if (arrays.has("temperatures")) arrays.get("temperatures", s.temperatures, {{"", outputs}});
  if (arrays.has("uniforms")) arrays.get("uniforms", s.uniforms, {{"", outputs}});
  if (rows < 1 || rows > p.max_rows) refuse("tokens, at most", p.max_rows, rows);
  if (seqs < 1) refuse("row_starts, at least", 2, seqs + 1);
  if (outputs > INT32_MAX) refuse("output_rows, at most", INT32_MAX, outputs);
  s.rows = (int32_t)rows;
  s.seqs = (int32_t)seqs;
  s.outputs = (int32_t)outputs;
}

template <class Arrays>
void read_output(Arrays& arrays, const ProgramParts& p, Step& s) {
  arrays.get("argmax", s.argmax, {{"", s.outputs}});
  arrays.get("log_sum_exp", s.log_sum_exp, {{"", s.outputs}});
  arrays.get("top_ids", s.top_ids, {{"outputs", s.outputs}, {"columns", s.top_k}});
  arrays.get("top_logits", s.top_logits, {{"outputs", s.outputs}, {"columns", s.top_k}});
  arrays.get("logits", s.logits, {{"rows", s.count(kLogits)}, {"width", p.vocab()}});
  arrays.get("hidden", s.hidden, {{"rows", s.count(kHidden)}, {"width", p.hidden()}});
  arrays.get("drawn", s.drawn, {{"", s.count(kDraw)}});
  arrays.get("drawn_logits", s.drawn_logits, {{"", s.count(kDraw)}});
  const int64_t counters = arrays.get("op_ns", s.op_ns, {{"", kAny}});
  if (counters == 0) s.op_ns = nullptr;
  else same("op_ns", (int64_t)p.ops.size(), counters);
}

// Blocks that hold what some row sees or writes; a windowed group may have given back the ones
// before. Of sinks that is the first, and what they belong to has the others.
inline void check_blocks(const ProgramParts& p, const Step& s, int32_t seq, int32_t group) {
  const int32_t first_position = s.positions[s.row_starts[seq]],
                last_position = s.positions[s.row_starts[seq + 1] - 1];
  const LayerGroup& g = p.groups[group];
  const int32_t size = g.layout.block_size, last = last_position / size;
  if (last >= s.max_blocks) refuse("block_tables blocks, above", last, s.max_blocks);
  const int32_t seen =
      g.window > 0 && first_position >= g.window + g.beginning ? first_position - g.window + 1 : 0;
  const int32_t* table = s.block_tables + ((int64_t)group * s.seqs + seq) * s.max_blocks;
  const int32_t begin = std::max(seen, g.sinks_end()) / size, end = g.is_sinks ? 1 : last + 1;
  for (int32_t b = begin; b < end; ++b) below("block_tables", table[b], g.blocks);
  for (int32_t b = 0; b < begin && b * size < g.beginning; ++b)
    below("block_tables", table[b], g.blocks);
}

inline void check_rows(const ProgramParts& p, const Step& s) {
  const int64_t positions = std::min(p.context, p.embedded_positions());
  same("row_starts[0]", 0, s.row_starts[0]);
  same("row_starts[-1]", s.rows, s.row_starts[s.seqs]);
  for (int32_t row = 0; row < s.rows; ++row) {
    below("tokens", s.tokens[row], p.embedding_rows());
    below("positions", s.positions[row], positions);
  }
  for (int32_t seq = 0; seq < s.seqs; ++seq) {
    const int32_t begin = s.row_starts[seq], end = s.row_starts[seq + 1];
    if (end <= begin || end > s.rows) refuse("row_starts, above", begin, end);
    for (int32_t row = begin + 1; row < end; ++row)
      same("positions of a sequence, consecutive", s.positions[row - 1] + 1, s.positions[row]);
    if (s.write_starts[seq] < 0) refuse("write_starts, at least", 0, s.write_starts[seq]);
    for (size_t g = 0; g < p.groups.size(); ++g) check_blocks(p, s, seq, (int32_t)g);
  }
}

inline void check_draw(const Step& s, int32_t output) {
  if (s.temperatures == nullptr || s.uniforms == nullptr)
    throw std::invalid_argument("temperatures and uniforms: expected where DRAW is wanted");
  const float temperature = s.temperatures[output];
  if (!(temperature > 0.0f && temperature <= FLT_MAX))
    refuse("temperatures", "more than 0, and finite", temperature);
  const double u = s.uniforms[output];
  if (!(u >= 0.0 && u < 1.0)) refuse("uniforms", "0 to 1, less than 1", u);
}

inline void check_outputs(const Step& s) {
  if (s.top_k < 0 || s.top_k > kMaxTopK) refuse("top_k, at most", kMaxTopK, s.top_k);
  for (int32_t i = 0; i < s.outputs; ++i) {
    below("output_rows", s.output_rows[i], s.rows);
    below("wants", s.wants[i], kNumWants);
    if (s.wants[i] == kDraw) check_draw(s, i);
  }
}

inline void check_edits(const ProgramParts& p, const Step& s) {
  same("edit_starts[0]", 0, s.edit_starts[0]);
  same("edit_starts[-1]", s.num_edits, s.edit_starts[s.outputs]);
  for (int32_t i = 0; i < s.outputs; ++i) {
    if (s.edit_starts[i + 1] < s.edit_starts[i])
      refuse("edit_starts, at least", s.edit_starts[i], s.edit_starts[i + 1]);
    if (s.edit_starts[i + 1] > s.num_edits)
      refuse("edit_starts, at most", s.num_edits, s.edit_starts[i + 1]);
    for (int32_t e = s.edit_starts[i]; e < s.edit_starts[i + 1]; ++e) {
      below("edits token", s.edits[e].token, p.vocab());
      if (e > s.edit_starts[i] && s.edits[e].token <= s.edits[e - 1].token)
        refuse("edits tokens of an output, above", s.edits[e - 1].token, s.edits[e].token);
    }
  }
}

// `batch` and `output` must live as long as the Step.
template <class Arrays>
Step step_of(Arrays& batch, Arrays& output, const ProgramParts& p) {
  Step s{};
  read_batch(batch, p, s);
  check_rows(p, s);
  check_outputs(s);
  if (s.edit_starts != nullptr) check_edits(p, s);
  read_output(output, p, s);
  return s;
}

}  // namespace octavo
