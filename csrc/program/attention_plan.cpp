#include "program/attention_plan.h"

#include <algorithm>
#include <cstring>

#include "kernels/attention.h"

namespace octavo {
namespace {

// Few rows of a sequence: all of its heads, and which of its chunks are units of their own.
struct FewRows {
  int32_t seq, row0, row1, first_chunk, end_chunk;
  bool shares = false;  // a unit of some chunk with other rows
  int32_t splits = -1;  // of kv head 0's first block of heads, in plan.splits; -1: not split
};

struct SharedChunk {  // rows that see all of a chunk in the same blocks, as many as one unit takes
  int32_t chunk;
  std::vector<int32_t> rows;  // indices of few_, more than one
};

class Planner {
 public:
  Planner(const Step& step, const LayerGroup& group, const int32_t* tables, int32_t query_heads,
          int32_t threads)
      : s_(step), layout_(group.layout), window_(group.window), tables_(tables), threads_(threads),
        group_heads_(query_heads / layout_.kv_heads),
        head_blocks_(divide_up(group_heads_, kUnitAttentionHeads)),
        unit_heads_(std::min(group_heads_, kUnitAttentionHeads)),
        most_tokens_(std::max(1, kUnitAttentionRows / unit_heads_)) {}

  AttentionPlan plan() {
    collect_rows();
    const std::vector<SharedChunk> shared = shared_chunks();
    for (const SharedChunk& c : shared)
      for (const int32_t rows : c.rows) few_[rows].shares = true;
    const bool few_units = s_.seqs * layout_.kv_heads * head_blocks_ < 8 * threads_;
    for (FewRows& rows : few_) {
      // So that one long sequence keeps every thread busy.
      const bool cut = few_units && rows.end_chunk - rows.first_chunk > 1;
      if (cut || rows.shares) split(rows);
      else add_whole(rows.seq, rows.row0, rows.row1);
    }
    for (const SharedChunk& c : shared)
      for (int32_t block = 0; block < layout_.kv_heads * head_blocks_; ++block)
        add_chunk(c.chunk, block, c.rows.data(), (int32_t)c.rows.size());
    for (const FewRows& rows : few_)
      if (rows.splits >= 0) add_own_chunks(rows);
    std::stable_sort(
        plan_.units.begin(), plan_.units.end(),
        [](const AttentionUnit& x, const AttentionUnit& y) { return x.cost > y.cost; });
    return std::move(plan_);
  }

 private:
  int32_t rows_of(int32_t seq) const { return s_.row_starts[seq + 1] - s_.row_starts[seq]; }

  // What a kernel would be told of the sequence's positions.
  AttentionArgs positions_of(int32_t seq) const {
    AttentionArgs a{};
    a.first_position = s_.positions[s_.row_starts[seq]];
    a.window = window_;
    return a;
  }

  // Tokens of a unit of many rows: fewer where there are so few units that threads would wait for
  // the last one.
  int32_t unit_tokens() const {
    for (int32_t rows = kUnitAttentionRows;; rows /= 2) {
      const int32_t tokens = std::max(1, rows / unit_heads_);
      int32_t units = 0;
      for (int32_t seq = 0; seq < s_.seqs; ++seq) units += divide_up(rows_of(seq), tokens);
      if (rows <= kLeastUnitAttentionRows ||
          units * layout_.kv_heads * head_blocks_ >= 4 * threads_)
        return tokens;
    }
  }

  void collect_rows() {
    const int32_t many = unit_tokens();
    for (int32_t seq = 0; seq < s_.seqs; ++seq) {
      const AttentionArgs a = positions_of(seq);
      const int32_t rows = rows_of(seq), tokens = rows <= kChunkedRows ? most_tokens_ : many;
      for (int32_t row0 = 0; row0 < rows; row0 += tokens) {
        const int32_t row1 = std::min(row0 + tokens, rows);
        if (rows <= kChunkedRows)
          few_.push_back(
              {seq, row0, row1, attention_first_chunk(&a, row0), attention_end_chunk(&a, row1)});
        else add_whole(seq, row0, row1);
      }
    }
  }

  bool sees_all(const FewRows& rows, int32_t chunk) const {
    const AttentionArgs a = positions_of(rows.seq);
    return attention_first_visible(&a, rows.row1 - 1) <= chunk * kAttentionChunk &&
           a.first_position + rows.row0 >= (chunk + 1) * kAttentionChunk - 1;
  }

  const int32_t* blocks_of(int32_t rows, int32_t chunk) const {
    return tables_ + (int64_t)few_[rows].seq * s_.max_blocks +
           chunk * (kAttentionChunk / layout_.block_size);
  }
  int compare_blocks(int32_t x, int32_t y, int32_t chunk) const {
    return std::memcmp(blocks_of(x, chunk), blocks_of(y, chunk),
                       kAttentionChunk / layout_.block_size * sizeof(int32_t));
  }

  std::vector<SharedChunk> shared_chunks() const {
    std::vector<SharedChunk> shared;
    int32_t end = 0;
    for (const FewRows& rows : few_) end = std::max(end, rows.end_chunk);
    std::vector<int32_t> seen;
    for (int32_t chunk = 0; chunk < end && few_.size() > 1; ++chunk) {
      seen.clear();
      for (int32_t rows = 0; rows < (int32_t)few_.size(); ++rows)
        if (sees_all(few_[rows], chunk)) seen.push_back(rows);
      std::sort(seen.begin(), seen.end(), [&](int32_t x, int32_t y) {
        const int order = compare_blocks(x, y, chunk);
        return order != 0 ? order < 0 : x < y;
      });
      for (size_t i = 0, j; i < seen.size(); i = j) {
        for (j = i + 1; j < seen.size() && compare_blocks(seen[i], seen[j], chunk) == 0;) ++j;
        share_out(chunk, seen.data() + i, seen.data() + j, shared);
      }
    }
    return shared;
  }

  // In even parts of at most kUnitAttentionRows (token, head) rows. Who would be alone in one
  // shares nothing: rows of one sequence, too, have their chunks in the same blocks.
  void share_out(int32_t chunk, const int32_t* rows, const int32_t* end,
                 std::vector<SharedChunk>& shared) const {
    const auto tokens_of = [&](int32_t i) { return few_[i].row1 - few_[i].row0; };
    int32_t tokens = 0;
    for (const int32_t* i = rows; i < end; ++i) tokens += tokens_of(*i);
    const int32_t most = divide_up(tokens, divide_up(tokens, most_tokens_));
    for (const int32_t* next; rows < end; rows = next) {
      int32_t taken = tokens_of(*rows);
      for (next = rows + 1; next < end && taken + tokens_of(*next) <= most; ++next)
        taken += tokens_of(*next);
      if (next - rows > 1) shared.push_back({chunk, {rows, next}});
    }
  }

  AttentionRows block_rows(int32_t seq, int32_t row0, int32_t row1, int32_t kv_head,
                           int32_t block) const {
    const int32_t begin = block * kUnitAttentionHeads;
    return {seq,
            row0,
            row1,
            kv_head,
            kv_head * group_heads_ + begin,
            std::min(group_heads_ - begin, kUnitAttentionHeads)};
  }

  void add_whole(int32_t seq, int32_t row0, int32_t row1) {
    const AttentionArgs a = positions_of(seq);
    const int64_t chunks = attention_end_chunk(&a, row1) - attention_first_chunk(&a, row0);
    for (int32_t kv_head = 0; kv_head < layout_.kv_heads; ++kv_head)
      for (int32_t block = 0; block < head_blocks_; ++block) {
        AttentionUnit unit{block_rows(seq, row0, row1, kv_head, block)};
        unit.cost = (row1 - row0) * unit.heads * chunks;
        plan_.units.push_back(unit);
      }
  }

  void split(FewRows& rows) {
    const int32_t chunks = rows.end_chunk - rows.first_chunk;
    rows.splits = (int32_t)plan_.splits.size();
    for (int32_t kv_head = 0; kv_head < layout_.kv_heads; ++kv_head)
      for (int32_t block = 0; block < head_blocks_; ++block) {
        const int32_t places = (int32_t)plan_.places.size();
        plan_.splits.push_back(
            {block_rows(rows.seq, rows.row0, rows.row1, kv_head, block), chunks, places});
        plan_.places.resize(places + chunks, -1);
      }
  }

  int64_t& place(const FewRows& rows, int32_t head_block, int32_t chunk) {
    return plan_.places[plan_.splits[rows.splits + head_block].places + chunk - rows.first_chunk];
  }

  // Of one block of heads, counted through all kv heads: rows few_[rows[0]], few_[rows[1]], ...
  void add_chunk(int32_t chunk, int32_t head_block, const int32_t* rows, int32_t count) {
    const SplitRows& first = plan_.splits[few_[rows[0]].splits + head_block];
    AttentionUnit unit{first};
    unit.chunk = chunk;
    unit.begin = (int32_t)plan_.members.size();
    unit.end = unit.begin + count;
    if (count > 1) unit.q_rows = (int32_t)plan_.q_rows.size();
    unit.partial = plan_.partial_floats;
    for (int32_t i = 0; i < count; ++i) {
      const FewRows& member = few_[rows[i]];
      plan_.members.push_back(member.splits + head_block);
      place(member, head_block, chunk) = plan_.partial_floats;
      plan_.partial_floats +=
          (int64_t)(member.row1 - member.row0) * unit.heads * attention_partial_floats(&layout_);
      for (int32_t row = member.row0; row < member.row1 && count > 1; ++row)
        plan_.q_rows.push_back(s_.row_starts[member.seq] + row);
    }
    if (count > 1) {
      unit.row0 = 0;
      unit.row1 = (int32_t)plan_.q_rows.size() - unit.q_rows;
    }
    unit.cost = (int64_t)(unit.row1 - unit.row0) * unit.heads;
    plan_.units.push_back(unit);
  }

  // Those of one chunk stand together: the K and V that its blocks of heads share are read from
  // memory by the first.
  void add_own_chunks(const FewRows& rows) {
    const int32_t index = (int32_t)(&rows - few_.data());
    for (int32_t kv_head = 0; kv_head < layout_.kv_heads; ++kv_head)
      for (int32_t chunk = rows.first_chunk; chunk < rows.end_chunk; ++chunk)
        for (int32_t i = 0; i < head_blocks_; ++i) {
          const int32_t block = kv_head * head_blocks_ + i;
          if (place(rows, block, chunk) < 0) add_chunk(chunk, block, &index, 1);
        }
  }

  const Step& s_;
  const KVLayout& layout_;
  const int32_t window_;
  const int32_t* tables_;
  const int32_t threads_, group_heads_, head_blocks_, unit_heads_, most_tokens_;
  std::vector<FewRows> few_;
  AttentionPlan plan_;
};

}  // namespace

AttentionPlan plan_attention(const Step& step, const LayerGroup& group, const int32_t* block_tables,
                             int32_t query_heads, int32_t threads) {
  return Planner(step, group, block_tables, query_heads, threads).plan();
}

}  // namespace octavo
