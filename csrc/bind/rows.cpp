// Row-wise ops for tests, the head and the sampler: checks shapes by name, then one call without
// the GIL.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "bind/bindings.h"
#include "uniform.h"
#include "kernels/attention.h"
#include "program/row_ops.h"

namespace octavo {
namespace {

using Floats = Array<const float, 1>;
using FloatsOut = Array<float, 1>;
using Ints = Array<const int32_t, 1>;
using IntsOut = Array<int32_t, 1>;

const RowKernels& rows_for(const std::string& isa) { return *table_for(isa).rows; }

void need_size(const char* name, size_t got, size_t want) {
  expect(got == want, name, std::to_string(want) + " values", got);
}
int32_t length(const char* name, size_t size, int32_t most = INT32_MAX) {
  within(name, (int64_t)size, 1, most);
  return (int32_t)size;
}

// One row through an op of kRowOps (tests only).
void row_op(const std::string& isa, const std::string& name, FloatsOut out, Floats x,
            std::optional<Floats> y, std::optional<Floats> weight, std::optional<Floats> bias,
            std::optional<Floats> cos, std::optional<Floats> sin, int32_t heads, int32_t norm_kind,
            int32_t rope_style, int32_t activation, float eps, float scale, int32_t position,
            int32_t original) {
  const RowKernels& k = rows_for(isa);
  const RowOp* op = std::find_if(std::begin(kRowOps), std::end(kRowOps),
                                 [&](const RowOp& o) { return name == o.name; });
  expect(op != std::end(kRowOps), "name", "an op of row_ops.h", name);
  const int32_t width = (int32_t)x.size();
  within("x", (int64_t)x.size(), 0, 1 << 24);
  within("heads", heads, 1, op->heads ? width : 1);
  expect(width % heads == 0, "heads", "a divisor of " + std::to_string(width), heads);
  const int32_t dim = width / heads;
  need_size("out", out.size(), x.size());
  const auto need = [&](const char* what, bool needed, const std::optional<Floats>& given,
                        size_t size) {
    expect(needed == given.has_value(), what, needed ? "an array" : "none",
           given ? "an array" : "none");
    if (needed) need_size(what, given->size(), size);
  };
  need("y", op->inputs > 1, y, x.size());
  need("weight", (op->norm || op->factor) && weight, weight, op->factor ? 1 : dim);
  need("bias", op->norm && bias, bias, dim);
  need("cos", op->rope, cos, cos ? cos->size() : 0);
  need("sin", op->rope, sin, cos ? cos->size() : 0);
  const int32_t half = cos ? (int32_t)cos->size() : 0;
  expect(2 * half <= dim, "cos", "at most dim/2 values", half);
  within("norm_kind", norm_kind, 0, kNumNorms - 1);
  within("rope_style", rope_style, 0, kNumRopeStyles - 1);
  within("activation", activation, 0, std::max(op->activations, 1) - 1);
  within("position", position, 0, kAttentionMaxContext);
  within("original", original, 1, INT32_MAX);
  OpRecord record{};
  record.heads = heads;
  record.head_dim = dim;
  record.norm_kind = norm_kind;
  record.rope_style = rope_style;
  record.activation = activation;
  record.eps = eps;
  record.scale = scale;
  record.original = original;
  const auto data = [](const std::optional<Floats>& array) {
    return array ? array->data() : nullptr;
  };
  const ReleasedGil released;
  op->run(k, {record, width, x.data(), data(y), data(weight), data(bias), data(cos), data(sin),
              half, position, out.data()});
}

void add_scaled(const std::string& isa, FloatsOut out, Floats x, float factor) {
  need_size("x", x.size(), out.size());
  rows_for(isa).add_scaled(x.data(), factor, length("out", out.size()), out.data());
}

void route(const std::string& isa, FloatsOut out, Floats logits, std::optional<Floats> choice_bias,
           int32_t score, bool renormalise, float scale, int32_t groups, int32_t groups_used) {
  const int32_t experts = length("logits", logits.size(), kMaxExperts);
  within("groups", groups, 1, experts);
  expect(experts % groups == 0, "groups", "a divisor of " + std::to_string(experts), groups);
  within("groups_used", groups_used, 1, groups);
  within("score", score, 0, kNumRouteScores - 1);
  const int32_t used = length("out", out.size(), 2 * (experts / groups * groups_used)) / 2;
  need_size("out", out.size(), 2 * (size_t)used);
  if (choice_bias) {
    need_size("choice_bias", choice_bias->size(), logits.size());
    if (groups > 1)
      within("experts of a group, beside a choice_bias", experts / groups, 2, experts);
  }
  const Routing routing{experts, used, score, groups, groups_used, renormalise, scale};
  rows_for(isa).route(&routing, logits.data(), choice_bias ? choice_bias->data() : nullptr,
                      out.data());
}

void softcap(const std::string& isa, FloatsOut logits, float cap) {
  if (!(cap > 0.0f)) refuse("cap", "more than 0", cap);
  rows_for(isa).softcap(logits.data(), cap, length("logits", logits.size()), logits.data());
}

nb::tuple summary_tuple(const TileSummary& s) {
  return nb::make_tuple(s.max, s.sum, s.best, log_sum_exp(&s));
}

nb::tuple summarize_tile(const std::string& isa, Floats logits, int32_t base) {
  const int32_t n = length("logits", logits.size());
  within("base", base, 0, (int64_t)INT32_MAX - n);
  TileSummary summary;
  rows_for(isa).summarize_tile(logits.data(), n, base, &summary);
  return summary_tuple(summary);
}

nb::tuple merge_summaries(const std::string& isa, Floats maxima, Floats sums, Ints best) {
  const RowKernels& k = rows_for(isa);
  const int32_t count = length("maxima", maxima.size());
  need_size("sums", sums.size(), maxima.size());
  need_size("best", best.size(), maxima.size());
  std::vector<TileSummary> tiles;
  for (int32_t t = 0; t < count; t++)
    tiles.push_back({maxima.data()[t], sums.data()[t], best.data()[t]});
  TileSummary whole;
  k.merge_summaries(tiles.data(), count, &whole);
  return summary_tuple(whole);
}

void need_sorted_edits(const Edit* edits, size_t count) {
  for (size_t i = 1; i < count; i++) {
    if (edits[i].token <= edits[i - 1].token)
      refuse("edits", "tokens in ascending order",
             "token " + std::to_string(edits[i].token) + " after " +
                 std::to_string(edits[i - 1].token));
  }
}

// How many tokens a tile of them has that begins at `base`; base + n is an int32.
int32_t tokens_from(int32_t base, size_t size) {
  const int32_t n = length("logits", size, kMaxVocab);
  if (base < 0 || base % 16 != 0) refuse("base", "a multiple of 16, at least 0", base);
  within("base", base, 0, INT32_MAX - kMaxVocab);
  return n;
}

void need_bits(const std::optional<Array<const uint32_t, 1>>& mask, int32_t tokens) {
  if (mask && (int64_t)mask->size() * 32 < tokens)
    refuse("mask", "a bit for each of " + std::to_string(tokens) + " tokens",
           std::to_string(mask->size()) + " words");
}

// Edits come as the bytes of octavo.batch.EDIT records, shape (edits, 12).
void edit_tile(const std::string& isa, FloatsOut logits, int32_t base,
               std::optional<Array<const uint32_t, 1>> mask, Array<const uint8_t, 2> edits) {
  const RowKernels& k = rows_for(isa);
  const int32_t n = tokens_from(base, logits.size());
  if (edits.shape(1) != sizeof(Edit)) refuse("edits", "records of 12 bytes", edits.shape(1));
  need_bits(mask, base + n);
  const Edit* list = reinterpret_cast<const Edit*>(edits.data());
  need_sorted_edits(list, edits.shape(0));
  const ReleasedGil released;
  k.edit_tile(logits.data(), base, n, mask ? mask->data() : nullptr, list, (int32_t)edits.shape(0));
}

nb::tuple best_tile(const std::string& isa, Floats logits, int32_t base,
                    std::optional<Array<const uint32_t, 1>> mask) {
  const int32_t n = tokens_from(base, logits.size());
  need_bits(mask, base + n);
  TileSummary summary;
  rows_for(isa).best_tile(logits.data(), base, n, mask ? mask->data() : nullptr, &summary);
  return nb::make_tuple(summary.max, summary.best);
}

void top_k_tile(const std::string& isa, IntsOut ids, FloatsOut values, Floats logits,
                int32_t base) {
  const RowKernels& k = rows_for(isa);
  within("ids", (int64_t)ids.size(), 0, kMaxTopK);
  need_size("values", values.size(), ids.size());
  const int32_t n = length("logits", logits.size());
  within("base", base, 0, (int64_t)INT32_MAX - n);
  const ReleasedGil released;
  k.top_k_tile(logits.data(), n, base, (int32_t)ids.size(), ids.data(), values.data());
}

void merge_top_k(const std::string& isa, IntsOut out_ids, FloatsOut out_values,
                 Array<const int32_t, 2> ids, Array<const float, 2> values) {
  const RowKernels& k = rows_for(isa);
  const int32_t tiles = length("ids", ids.shape(0));
  within("out_ids", (int64_t)out_ids.size(), 0, kMaxTopK);
  need_size("out_values", out_values.size(), out_ids.size());
  need_size("ids", ids.shape(1), out_ids.size());
  need_size("values", values.size(), ids.size());
  const ReleasedGil released;
  k.merge_top_k(ids.data(), values.data(), tiles, (int32_t)out_ids.size(), out_ids.data(),
                out_values.data());
}

int32_t sample(const std::string& isa, Floats logits, float temperature, int32_t top_k, float top_p,
               float min_p, double u, Array<uint64_t, 1> scratch,
               std::optional<int32_t> likeliest) {
  const RowKernels& k = rows_for(isa);
  const int32_t n = length("logits", logits.size(), kMaxVocab);
  if (!(temperature > 0.0f)) refuse("temperature", "more than 0", temperature);
  if (temperature == INFINITY) refuse("temperature", "a finite number", "inf");
  if (top_k < 0) refuse("top_k", "0 (all) or more", top_k);
  if (!(top_p >= 0.0f && top_p <= 1.0f)) refuse("top_p", "0 to 1", top_p);
  if (!(min_p >= 0.0f && min_p <= 1.0f)) refuse("min_p", "0 to 1", min_p);
  if (!(u >= 0.0 && u < 1.0)) refuse("u", "0 to 1, less than 1", u);
  if ((int64_t)scratch.size() * 8 < sample_scratch_bytes(n))
    refuse("scratch", "at least " + std::to_string(sample_scratch_bytes(n) / 8) + " values",
           scratch.size());
  if (likeliest) within("likeliest", *likeliest, 0, n - 1);
  const ReleasedGil released;
  return k.sample(logits.data(), n, likeliest.value_or(-1), temperature, top_k, top_p, min_p, u,
                  scratch.data());
}

// Of the tokens that are drawn by rows at these positions, which come after them.
void uniforms(Array<double, 1> out, Array<const uint64_t, 2> counters, Ints positions) {
  expect(counters.shape(0) == out.size() && counters.shape(1) == 2, "counters",
         "2 of each of " + std::to_string(out.size()) + " rows",
         std::to_string(counters.shape(1)) + " of " + std::to_string(counters.shape(0)));
  need_size("positions", positions.size(), out.size());
  for (size_t i = 0; i < out.size(); ++i) {
    const uint64_t* of_row = counters.data() + 2 * i;
    out.data()[i] = uniform(of_row[0], of_row[1], (int64_t)positions.data()[i] + 1);
  }
}

}  // namespace

void bind_rows(nb::module_& m) {
  m.attr("VOCAB_TILE") = kVocabTile;
  m.attr("MAX_VOCAB") = kMaxVocab;
  m.attr("MAX_TOP_K") = kMaxTopK;
  m.def("row_op", &row_op, "isa"_a, "name"_a, "out"_a.noconvert(), "x"_a.noconvert(), nb::kw_only(),
        "y"_a.noconvert().none() = nb::none(), "weight"_a.noconvert().none() = nb::none(),
        "bias"_a.noconvert().none() = nb::none(), "cos"_a.noconvert().none() = nb::none(),
        "sin"_a.noconvert().none() = nb::none(), "heads"_a = 1, "norm_kind"_a = 0,
        "rope_style"_a = 0, "activation"_a = 0, "eps"_a = 0.0f, "scale"_a = 0.0f, "position"_a = 0,
        "original"_a = 1, "One row through a row-wise op (tests only).");
  m.def("add_scaled", &add_scaled, "isa"_a, "out"_a.noconvert(), "x"_a.noconvert(), "factor"_a);
  m.def("route", &route, "isa"_a, "out"_a.noconvert(), "logits"_a.noconvert(),
        "choice_bias"_a.noconvert().none(), "score"_a, "renormalise"_a, "scale"_a, "groups"_a,
        "groups_used"_a);
  m.def("softcap", &softcap, "isa"_a, "logits"_a.noconvert(), "cap"_a);
  m.def("summarize_tile", &summarize_tile, "isa"_a, "logits"_a.noconvert(), "base"_a);
  m.def("merge_summaries", &merge_summaries, "isa"_a, "maxima"_a.noconvert(), "sums"_a.noconvert(),
        "best"_a.noconvert());
  m.def("edit_tile", &edit_tile, "isa"_a, "logits"_a.noconvert(), "base"_a,
        "mask"_a.noconvert().none(), "edits"_a.noconvert());
  m.def("best_tile", &best_tile, "isa"_a, "logits"_a.noconvert(), "base"_a,
        "mask"_a.noconvert().none());
  m.def("top_k_tile", &top_k_tile, "isa"_a, "ids"_a.noconvert(), "values"_a.noconvert(),
        "logits"_a.noconvert(), "base"_a);
  m.def("merge_top_k", &merge_top_k, "isa"_a, "out_ids"_a.noconvert(), "out_values"_a.noconvert(),
        "ids"_a.noconvert(), "values"_a.noconvert());
  m.def("sample_scratch", [](int32_t n) { return sample_scratch_bytes(n) / 8; }, "n"_a,
        "uint64 values of scratch that `sample` needs for a vocabulary of n.");
  m.def("sample", &sample, "isa"_a, "logits"_a.noconvert(), "temperature"_a, "top_k"_a, "top_p"_a,
        "min_p"_a, "u"_a, "scratch"_a.noconvert(), "likeliest"_a.none() = nb::none());
  m.def("uniform", &uniform, "seed"_a, "answer"_a, "position"_a);
  m.def("uniforms", &uniforms, "out"_a.noconvert(), "counters"_a.noconvert(),
        "positions"_a.noconvert());
}

}  // namespace octavo
