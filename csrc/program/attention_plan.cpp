#include "program/attention_plan.h"

#include <algorithm>
#include <cstring>

#include "kernels/attention.h"

namespace octavo {
namespace {

// States that chunks' units may leave: in all 16 MiB, which caches hold more of than of K and V.
constexpr int64_t kMostSharedFloats = 4 << 20;

// Few rows of a sequence, all of its heads.
struct FewRows {
  int32_t seq, row0, row1;
  AttentionChunks chunks;
  int32_t shared = 0;   // chunks that it has with others
  int32_t places = -1;  // of the first block of heads, in plan.places
};

struct SharedChunk {  // rows that see all of a chunk in the same blocks, as many as one unit takes
  int32_t chunk;
  std::vector<int32_t> rows;  // indices of few_, more than one
};

class Planner {
 public:
  Planner(const Step& step, const LayerGroup& group, const GroupTables& tables, int32_t query_heads,
          int32_t threads)
      : s_(step), layout_(group.layout), group_(group), tables_(tables), threads_(threads),
        group_heads_(query_heads / layout_.kv_heads),
        head_blocks_(divide_up(group_heads_, kUnitAttentionHeads)),
        unit_heads_(std::min(group_heads_, kUnitAttentionHeads)),
        most_tokens_(std::max(1, kUnitAttentionRows / unit_heads_)) {}

  AttentionPlan plan() {
    collect_rows();
    for (const SharedChunk& chunk : shared_chunks()) add_shared(chunk);
    const bool few_units = s_.seqs * layout_.kv_heads * head_blocks_ < 8 * threads_;
    for (FewRows& rows : few_) {
      // So that one long sequence keeps every thread busy.
      if (few_units && rows.chunks.count() - rows.shared > 1) add_chunks(rows);
      else add_whole(rows.seq, rows.row0, rows.row1, rows.places, rows.shared);
    }
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
    a.window = group_.window;
    a.beginning = group_.beginning;
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
          few_.push_back({seq, row0, row1, attention_chunks(&a, row0, row1)});
        else add_whole(seq, row0, row1);
      }
    }
  }

  bool sees_all(const FewRows& rows, int32_t chunk) const {
    const AttentionArgs a = positions_of(rows.seq);
    return attention_first_visible(&a, rows.row1 - 1) <= chunk * kAttentionChunk &&
           a.first_position + rows.row0 >= (chunk + 1) * kAttentionChunk - 1;
  }

  const int32_t* table_of(const int32_t* tables, int32_t rows) const {
    return tables + (int64_t)few_[rows].seq * s_.max_blocks;
  }
  // Of the first chunk the first block is that of the sinks, where there are some.
  int compare_blocks(int32_t x, int32_t y, int32_t chunk) const {
    const int32_t size = kAttentionChunk / layout_.block_size, begin = chunk * size;
    int32_t apart = 0;
    if (tables_.sinks != nullptr && chunk == 0) {
      const int32_t a = *table_of(tables_.sinks, x), b = *table_of(tables_.sinks, y);
      if (a != b) return a < b ? -1 : 1;
      apart = 1;
    }
    return std::memcmp(table_of(tables_.blocks, x) + begin + apart,
                       table_of(tables_.blocks, y) + begin + apart,
                       (size - apart) * sizeof(int32_t));
  }

  std::vector<SharedChunk> shared_chunks() const {
    std::vector<SharedChunk> shared;
    int32_t end = 0;
    for (const FewRows& rows : few_) end = std::max(end, rows.chunks.end);
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

  AttentionUnit unit_of(int32_t seq, int32_t row0, int32_t row1, int32_t head_block) const {
    const int32_t kv_head = head_block / head_blocks_,
                  begin = head_block % head_blocks_ * kUnitAttentionHeads;
    AttentionUnit unit{{seq, row0, row1, kv_head, kv_head * group_heads_ + begin,
                        std::min(group_heads_ - begin, kUnitAttentionHeads)}};
    unit.cost = (int64_t)(row1 - row0) * unit.heads;
    return unit;
  }
  int32_t all_head_blocks() const { return layout_.kv_heads * head_blocks_; }

  void add_whole(int32_t seq, int32_t row0, int32_t row1, int32_t places = -1, int32_t shared = 0) {
    const AttentionArgs a = positions_of(seq);
    const int32_t chunks = attention_chunks(&a, row0, row1).count();
    for (int32_t block = 0; block < all_head_blocks(); ++block) {
      AttentionUnit unit = unit_of(seq, row0, row1, block);
      if (places >= 0) unit.places = places + block * chunks;
      unit.cost *= std::max(1, chunks - shared);
      plan_.units.push_back(unit);
    }
  }

  // Where the states of these rows over the chunk lie.
  int64_t& place(FewRows& rows, int32_t head_block, int32_t chunk) {
    if (rows.places < 0) {
      rows.places = (int32_t)plan_.places.size();
      plan_.places.resize(plan_.places.size() + (int64_t)all_head_blocks() * rows.chunks.count(),
                          -1);
    }
    return plan_.places[rows.places + head_block * rows.chunks.count() + rows.chunks.number(chunk)];
  }

  void add_shared(const SharedChunk& shared) {
    if (plan_.partial_floats >= kMostSharedFloats) return;
    const int32_t q_rows = (int32_t)plan_.q_rows.size();
    for (const int32_t index : shared.rows) {
      FewRows& rows = few_[index];
      rows.shared += 1;
      for (int32_t row = rows.row0; row < rows.row1; ++row)
        plan_.q_rows.push_back(s_.row_starts[rows.seq] + row);
    }
    const int32_t count = (int32_t)plan_.q_rows.size() - q_rows;
    for (int32_t block = 0; block < all_head_blocks(); ++block) {
      const AttentionUnit first = unit_of(few_[shared.rows[0]].seq, 0, 0, block);
      plan_.shared.push_back({first.seq, first.kv_head, first.head, first.heads, shared.chunk,
                              q_rows, count, plan_.partial_floats});
      for (const int32_t index : shared.rows) {
        FewRows& rows = few_[index];
        place(rows, block, shared.chunk) = plan_.partial_floats;
        plan_.partial_floats += state_floats(rows.row1 - rows.row0, first.heads);
      }
    }
  }
  int64_t state_floats(int32_t tokens, int32_t heads) const {
    return (int64_t)tokens * heads * attention_partial_floats(&layout_);
  }

  // Those of one chunk stand together: the K and V that its blocks of heads share are read from
  // memory by the first.
  void add_chunks(FewRows& rows) {
    for (int32_t kv_head = 0; kv_head < layout_.kv_heads; ++kv_head)
      for (int32_t each = 0; each < rows.chunks.count(); ++each)
        for (int32_t i = 0; i < head_blocks_; ++i) {
          const int32_t block = kv_head * head_blocks_ + i, chunk = rows.chunks.at(each);
          int64_t& state = place(rows, block, chunk);
          if (state >= 0) continue;
          AttentionUnit unit = unit_of(rows.seq, rows.row0, rows.row1, block);
          unit.places = rows.places + block * rows.chunks.count();
          unit.chunk = chunk;
          unit.split = plan_.splits + block;
          unit.split_chunks = rows.chunks.count() - rows.shared;
          unit.partial = state = plan_.partial_floats;
          plan_.partial_floats += state_floats(rows.row1 - rows.row0, unit.heads);
          plan_.units.push_back(unit);
        }
    plan_.splits += all_head_blocks();
  }

  const Step& s_;
  const KVLayout& layout_;
  const LayerGroup& group_;
  const GroupTables tables_;
  const int32_t threads_, group_heads_, head_blocks_, unit_heads_, most_tokens_;
  std::vector<FewRows> few_;
  AttentionPlan plan_;
};

}  // namespace

AttentionPlan plan_attention(const Step& step, const LayerGroup& group, const GroupTables& tables,
                             int32_t query_heads, int32_t threads) {
  return Planner(step, group, tables, query_heads, threads).plan();
}

}  // namespace octavo
