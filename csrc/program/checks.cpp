#include "program/checks.h"

#include <algorithm>
#include <cmath>

#include "kernels/matmul_layout.h"
#include "program/row_ops.h"

namespace octavo {
namespace {

class RecordChecker {
 public:
  explicit RecordChecker(const ProgramParts& parts)
      : p_(parts), group_heads_(parts.groups.size()), stored_(parts.groups.size()) {
    for (size_t g = 0; g < parts.groups.size(); ++g)
      stored_[g].resize(parts.groups[g].layout.layers);
  }

  void check(const OpRecord& op, const std::string& name) {
    const auto width = [&](const char* field, int32_t buffer) {
      below(name + "." + field, buffer, (int64_t)p_.buffers.size());
      return (int64_t)p_.buffers[buffer].width;
    };
    const auto of_head = [&](const char* field, int32_t buffer) {
      within(name + ".heads", op.heads, 1, width(field, buffer));
      same(name + "." + field + " width, modulo heads", 0, width(field, buffer) % op.heads);
      return width(field, buffer) / op.heads;
    };
    const auto matrix = [&](int i, int64_t rows, int64_t cols) {
      below(name + ".matrix", op.matrix[i], (int64_t)p_.matrices.size());
      if (rows >= 0) same(name + ".matrix rows", rows, p_.matrices[op.matrix[i]].rows);
      if (cols >= 0) same(name + ".matrix cols", cols, p_.matrices[op.matrix[i]].cols);
    };
    if (const RowOp* row_op = row_op_of(op.code)) {
      const int64_t columns = width("out", op.out), head = row_op->heads ? op.head_dim : columns;
      same(name + ".x width", columns, width("x", op.x));
      if (row_op->inputs > 1) same(name + ".y width", columns, width("y", op.y));
      if (row_op->heads) {
        within(name + ".heads", op.heads, 1, columns);
        same(name + ".heads x head_dim", columns, (int64_t)op.heads * op.head_dim);
      }
      if (row_op->norm) norm(op, name, head);
      if (row_op->factor) vector(op, name, 0, 1);
      if (row_op->rope) rope(op, name);
      if (row_op->activations > 0) activation(op, name, row_op->activations);
      if (row_op->position) within(name + ".original", op.original, 1, INT32_MAX);
      rows(op, name);
      return;
    }
    switch (op.code) {
      case kEmbed:
        if (op.table != -1) {
          below(name + ".table", op.table, (int64_t)p_.tables.size());
          same(name + ".table cols", p_.tables[op.table].cols, width("out", op.out));
          for (int i = 0; i < 2; ++i) same(name + ".matrix, beside a table", -1, op.matrix[i]);
          break;
        }
        if (op.matrix[0] != -1 || op.matrix[1] == -1) matrix(0, -1, width("out", op.out));
        if (op.matrix[1] == -1) break;
        matrix(1, -1, width("out", op.out));
        within(name + ".offset", op.offset, 0, p_.matrices[op.matrix[1]].rows - 1);
        break;
      case kNormQuantize:
        same(name + ".out width", width("x", op.x), width("out", op.out));
        norm(op, name, width("x", op.x));
        break;
      case kQuantize: same(name + ".out width", width("x", op.x), width("out", op.out)); break;
      case kMatmul:
        matrix(0, width("out", op.out), width("x", op.x));
        vector(op, name, 0, width("out", op.out));
        rows_for(op, 0, p_.buffers[op.x].kind, name);
        scale(op, name);
        if (op.add != -1) same(name + ".add width", width("out", op.out), width("add", op.add));
        break;
      case kStoreKV:
        group(op, name, width("x", op.x), op.y == -1 ? -1 : width("y", op.y));
        store(op, name);
        break;
      case kAttend:
      case kAttendQuantize: {
        const KVLayout& l = layout(op, name);
        same(name + ".x width", (int64_t)op.heads * l.k_dim, width("x", op.x));
        same(name + ".out width", (int64_t)op.heads * l.v_dim, width("out", op.out));
        if (op.heads % l.kv_heads != 0 || op.heads / l.kv_heads > kAttentionMaxGroup)
          refuse(name + ".heads of each KV head, at most", kAttentionMaxGroup, op.heads);
        vector(op, name, 0, op.heads);
        if (op.slopes != -1) slopes(op, name);
        if (p_.groups[op.group].beginning > 0) {
          same(name + ".y width, of q far from the beginning", width("x", op.x), width("y", op.y));
          same(name + ".slopes, beside a beginning", -1, op.slopes);
        }
        attention(op, l, name);
        break;
      }
      case kSlice:
        within(name + ".offset", op.offset, 0, (int64_t)width("x", op.x) - width("out", op.out));
        break;
      case kGateUp:
        matrix(0, width("out", op.out), width("x", op.x));
        matrix(1, width("out", op.out), width("x", op.x));
        for (int i = 0; i < 2; ++i) rows_for(op, i, p_.buffers[op.x].kind, name);
        activation(op, name);
        break;
      case kQKV: {
        const KVLayout& l = layout(op, name);
        const int64_t rows[] = {(int64_t)op.heads * l.k_dim, (int64_t)l.kv_heads * l.k_dim,
                                (int64_t)l.kv_heads * l.v_dim};
        for (int i = 0; i < 3; ++i) {
          matrix(i, rows[i], width("x", op.x));
          vector(op, name, i, rows[i]);
          rows_for(op, i, p_.buffers[op.x].kind, name);
        }
        for (int i = 3; i < 5; ++i) vector(op, name, i, l.k_dim);
        same(name + ".out width", rows[0], width("out", op.out));
        same(name + ".head_dim", l.k_dim, op.head_dim);
        same(name + ".group's V aliases K", 0, l.v_aliases_k);
        if (op.rope_table != -1) rope(op, name);
        store(op, name);
        break;
      }
      case kRoute:
        within(name + ".experts", op.experts, 1, kMaxExperts);
        same(name + ".x width", op.experts, width("x", op.x));
        within(name + ".expert_groups", op.expert_groups, 1, op.experts);
        same(name + ".experts, modulo expert_groups", 0, op.experts % op.expert_groups);
        within(name + ".groups_used", op.groups_used, 1, op.expert_groups);
        within(name + ".used", op.used, 1, op.experts / op.expert_groups * op.groups_used);
        same(name + ".out width", 2 * (int64_t)op.used, width("out", op.out));
        within(name + ".score", op.score, 0, kNumRouteScores - 1);
        within(name + ".renormalise", op.renormalise, 0, 1);
        vector(op, name, 0, op.experts);
        if (op.vector[0] != -1 && op.expert_groups > 1)  // which are as good as their best two
          within(name + ".experts of a group, beside a bias", op.experts / op.expert_groups, 2,
                 op.experts);
        scale(op, name);
        break;
      case kExperts: {
        within(name + ".experts", op.experts, 1, kMaxExperts);
        within(name + ".used", op.used, 1, op.experts);
        // Rows times experts are counted in int32, tile by tile.
        within(name + ".used x max_rows", (int64_t)op.used * p_.max_rows, 1, INT32_MAX - kMaxTile);
        same(name + ".y width", 2 * (int64_t)op.used, width("y", op.y));
        matrix(2, op.experts * width("out", op.out), -1);
        const int64_t ffn = p_.matrices[op.matrix[2]].cols;
        for (int i = 0; i < 2; ++i) matrix(i, op.experts * ffn, width("x", op.x));
        for (int i = 0; i < 3; ++i) {
          rows_for(op, i, op.row_kind[i], name);
          vector(op, name, i, p_.matrices[op.matrix[i]].rows);
        }
        // An expert is whole panels, and a unit of gate and up whole groups of columns.
        same(name + ".out width, modulo 16", 0, width("out", op.out) % kPanelRows);
        same(name + ".matrix cols of down, modulo 32", 0, ffn % kGroupColumns);
        activation(op, name);
        scale(op, name);
        if (op.add != -1) same(name + ".add width", width("out", op.out), width("add", op.add));
        break;
      }
      case kHeadLinear:  // a head's matrix is whole panels
        matrix(0, width("out", op.out), of_head("x", op.x));
        same(name + ".out width, modulo 16 x heads", 0,
             width("out", op.out) % ((int64_t)kPanelRows * op.heads));
        rows_for(op, 0, op.row_kind[0], name);
        break;
      case kJoin: {
        const int64_t first = of_head("x", op.x), second = of_head("y", op.y);
        same(name + ".out width", (first + second) * op.heads, width("out", op.out));
        break;
      }
      case kHead:
        matrix(0, -1, width("x", op.x));
        if (op.norm_kind != -1) norm(op, name, width("x", op.x));
        vector(op, name, 2, p_.matrices[op.matrix[0]].rows);
        within(name + ".tokens", op.tokens, 1, std::min(p_.matrices[op.matrix[0]].rows, kMaxVocab));
        scale(op, name);
        if (!(op.softcap >= 0.0f && std::isfinite(op.softcap)))
          throw std::invalid_argument(name +
                                      ".softcap: expected 0 (none) or a finite number above");
        rows_for(op, 0, op.row_kind[0], name);
        break;
      default: refuse(name + ".code, at most", kNumOps - 1, op.code);
    }
    rows(op, name);
  }

 private:
  void vector(const OpRecord& op, const std::string& name, int i, int64_t size) {
    if (op.vector[i] == -1) return;
    below(name + ".vector", op.vector[i], (int64_t)p_.vectors.size());
    same(name + ".vector size", size, p_.vector_sizes[op.vector[i]]);
  }
  // The weight and the bias of a norm of `columns` values are the first two vectors.
  void norm(const OpRecord& op, const std::string& name, int64_t columns) {
    within(name + ".norm_kind", op.norm_kind, 0, kNumNorms - 1);
    for (int i = 0; i < 2; ++i) vector(op, name, i, columns);
  }
  const KVLayout& layout(const OpRecord& op, const std::string& name) {
    below(name + ".group", op.group, (int64_t)p_.groups.size());
    if (p_.groups[op.group].is_sinks)
      throw std::invalid_argument(name + ".group: expected one that is no other's sinks");
    const KVLayout& l = p_.groups[op.group].layout;
    below(name + ".layer", op.layer, l.layers);
    return l;
  }
  // The rows that a matrix's kernel reads: integer formats int8 or two bf16 terms, the others their
  // own.
  void rows_for(const OpRecord& op, int i, int32_t kind, const std::string& name) {
    const int32_t format = p_.matrices[op.matrix[i]].format;
    if (!(is_integer_format(format) && kind == ABF16X2))
      same(name + ".row kind", act_kind_of(format), kind);
  }
  // v of -1: it is a part of k.
  void group(const OpRecord& op, const std::string& name, int64_t k, int64_t v) {
    const KVLayout& l = layout(op, name);
    same(name + ".x width", (int64_t)l.kv_heads * l.k_dim, k);
    if (v == -1) within(name + ".y, a part of x as wide as V", l.v_dim, 1, l.k_dim);
    else same(name + ".y width", (int64_t)l.kv_heads * l.v_dim, v);
    if (l.v_aliases_k) same(name + ".y, where V aliases K", -1, op.y);
  }
  // A layer is written by one op of the program, and every op that reads it comes later.
  void store(const OpRecord& op, const std::string& name) {
    if (stored_[op.group][op.layer])
      throw std::invalid_argument(name + ".layer: expected one that no op before stores");
    stored_[op.group][op.layer] = true;
  }
  void rope(const OpRecord& op, const std::string& name) {
    below(name + ".rope_table", op.rope_table, (int64_t)p_.rope_tables.size());
    within(name + ".rotary_dim", 2 * (int64_t)p_.rope_tables[op.rope_table].half, 0, op.head_dim);
    within(name + ".rope_style", op.rope_style, 0, kNumRopeStyles - 1);
  }
  void slopes(const OpRecord& op, const std::string& name) {
    below(name + ".slopes", op.slopes, (int64_t)p_.slopes.size());
    same(name + ".slopes of heads", op.heads, p_.slopes[op.slopes].heads);
  }
  void scale(const OpRecord& op, const std::string& name) {
    if (!std::isfinite(op.scale))
      throw std::invalid_argument(name + ".scale: expected a finite number");
  }
  void activation(const OpRecord& op, const std::string& name, int32_t kinds = kNumActivations) {
    within(name + ".activation", op.activation, 0, kinds - 1);
  }
  // The units of a group's layers are planned once, so their heads are the same; packed rows are
  // cut at whole groups of 32.
  void attention(const OpRecord& op, const KVLayout& l, const std::string& name) {
    if (!stored_[op.group][op.layer])
      throw std::invalid_argument(name + ".layer: expected one that an op before stores");
    int32_t& heads = group_heads_[op.group];
    if (heads == 0) heads = op.heads;
    same(name + ".heads, as in its group's other layers", heads, op.heads);
    if (op.code == kAttendQuantize)
      same(name + ".out columns of a KV head, modulo 32", 0, op.heads / l.kv_heads * l.v_dim % 32);
    if (!(op.scale > 0.0f && op.scale < 1e6f))
      throw std::invalid_argument(name + ".scale: expected a positive finite number");
    if (op.softcap != 0.0f && !(op.softcap >= kLeastSoftcap && op.softcap < 1e6f))
      throw std::invalid_argument(name + ".softcap: expected 0 (none) or a number from 0.001");
  }
  // Which of an op's buffers hold packed rows; the others hold floats, or are not there (-1).
  void rows(const OpRecord& op, const std::string& name) {
    const auto holds = [&](const char* field, int32_t buffer, bool packed) {
      if (buffer == -1) return;
      below(name + field, buffer, (int64_t)p_.buffers.size());
      if ((p_.buffers[buffer].kind >= 0) != packed)
        throw std::invalid_argument(
            name + field +
            (packed ? ": expected a buffer of packed rows" : ": expected a buffer of float rows"));
    };
    const int32_t code = op.code;
    holds(".x", op.x, code == kMatmul || code == kGateUp || code == kQKV);
    holds(".y", op.y, false);
    holds(".add", op.add, false);
    holds(".out", op.out,
          code == kQuantize || code == kNormQuantize || code == kAttendQuantize || code == kGateUp);
  }

  const ProgramParts& p_;
  std::vector<int32_t> group_heads_;       // query heads, 0: no attention yet
  std::vector<std::vector<bool>> stored_;  // by group, its layers
};

}  // namespace

void check_program(const ProgramParts& parts) {
  for (const LayerGroup& g : parts.groups)
    if (g.sinks >= 0) check_sinks(parts, g);
  RecordChecker checker(parts);
  for (size_t i = 0; i < parts.ops.size(); ++i)
    checker.check(parts.ops[i], std::string("op ").append(std::to_string(i)));
  check_ends(parts);
}

}  // namespace octavo
