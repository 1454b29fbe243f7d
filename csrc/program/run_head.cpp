// run_head.cpp: the head: logits by fixed vocabulary tiles, edited, summarised and merged in index
// order. Outputs that want hidden rows alone never meet the vocabulary.
#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "program/run.h"

namespace octavo {

constexpr int32_t kVocabPanels = kVocabTile / 16;

void Run::plan_head() {
  const OpRecord& op = parts_.ops.back();
  const Weight& w = matrix(op, 0);
  vocab_tiles_ = divide_up(w.panels, kVocabPanels);
  token_tiles_ = divide_up(op.tokens, kVocabTile);
  int64_t counts[kNumWants] = {};
  for (int32_t i = 0; i < s_.outputs; ++i) {
    if (s_.wants[i] == kHidden) {
      hidden_.push_back(i);
      continue;
    }
    scored_.push_back(i);
    places_.push_back(counts[s_.wants[i]]++);
  }
  drawn_stride_ = align64(op.tokens);
  const size_t drawn = counts[kDraw] * drawn_stride_;
  if (p_.drawn_rows_.size() < drawn) {
    p_.drawn_rows_.clear();  // nothing of an earlier step is copied
    p_.drawn_rows_.resize(drawn);
  }
  if (drawn > 0) unedited_.resize(s_.num_edits);
  summaries_.resize((size_t)2 * scored_.size() * token_tiles_);
  if (s_.top_k > 0) {
    top_ids_.resize(scored_.size() * token_tiles_ * s_.top_k);
    top_values_.resize(top_ids_.size());
  }
  head_acts_.resize(act_row_bytes(op.row_kind[0], w.cols) * scored_.size() + 64);
}

bool Run::edited(int32_t output) const {
  return s_.masks != nullptr ||
         (s_.edit_starts != nullptr && s_.edit_starts[output + 1] > s_.edit_starts[output]);
}
TileSummary* Run::summaries(int32_t row, bool after_edits) {
  return summaries_.data() + ((int64_t)after_edits * scored_.size() + row) * token_tiles_;
}

// An output's row after the head's norm, if it has one; it lasts until the scratch is written.
const float* Run::head_row(const OpRecord& op, int32_t output, float* scratch) {
  const float* x = rows_of(op.x, s_.output_rows[output]);
  if (op.norm_kind < 0) return x;
  norm(op, x, matrix(op, 0).cols, scratch);
  return scratch;
}

void Run::head(const OpRecord& op, int32_t index, int thread) {
  const Weight& w = matrix(op, 0);
  const int32_t rows = (int32_t)scored_.size(), tiles = rows > 0 ? tile_count(rows) : 0;
  const Acts acts = {
      reinterpret_cast<uint8_t*>(align64(reinterpret_cast<int64_t>(head_acts_.data()))),
      op.row_kind[0], rows, w.cols};
  float* scratch = reinterpret_cast<float*>(p_.scratch_[thread]);
  share(index, tiles + (int32_t)hidden_.size(), thread, [&](int32_t unit) {
    if (unit < tiles) {  // as in share_rows
      for (int32_t row = tile_begin(rows, unit); row < tile_begin(rows, unit + 1); ++row)
        p_.kernels_->matmul->quantize(head_row(op, scored_[row], scratch), &acts, row, 0, w.cols);
      return;
    }
    const int32_t row = unit - tiles, i = hidden_[row];
    std::memcpy(s_.hidden + (int64_t)row * w.cols, head_row(op, i, scratch), (size_t)w.cols * 4);
    s_.argmax[i] = -1;
    s_.log_sum_exp[i] = std::numeric_limits<float>::quiet_NaN();
  });
  if (rows == 0) return;
  pool_.barrier();
  const int32_t blocks = divide_up(tiles, kBlockTiles);
  share(index, vocab_tiles_ * blocks, thread, [&](int32_t unit) {
    const int32_t tile0 = unit / vocab_tiles_ * kBlockTiles;
    vocab_tile(op, w, acts, unit % vocab_tiles_, tile0, std::min(tile0 + kBlockTiles, tiles),
               scratch);
  }, 1);
  pool_.barrier();
  share(index, rows, thread, [&](int32_t row) { merge(row, thread); }, 2);
}

void Run::vocab_tile(const OpRecord& op, const Weight& w, const Acts& acts, int32_t v,
                     int32_t tile0, int32_t tile1, float* logits) {
  const RowKernels& k = *p_.kernels_->rows;
  const int32_t row0 = tile_begin(acts.rows, tile0), row1 = tile_begin(acts.rows, tile1);
  const int32_t base = v * kVocabTile, rows = std::min(kVocabTile, w.rows - base);
  const int32_t n = std::min(rows, op.tokens - base);  // that are tokens
  p_.kernels_->matmul->matmul(&w, v * kVocabPanels, std::min((v + 1) * kVocabPanels, w.panels),
                              &acts, tile0, tile1, {.bias = vector(op, 2), .scale = op.scale},
                              logits - (int64_t)row0 * kVocabTile, kVocabTile);
  for (int32_t row = row0; row < row1; ++row) {
    const int32_t i = scored_[row];
    float* x = logits + (int64_t)(row - row0) * kVocabTile;
    if (op.softcap > 0.0f) k.softcap(x, op.softcap, rows, x);
    if (s_.wants[i] == kLogits)
      std::memcpy(s_.logits + places_[row] * w.rows + base, x, (size_t)rows * 4);
    if (n <= 0) continue;
    k.summarize_tile(x, n, base, summaries(row, false) + v);
    if (edited(i)) {
      const int32_t begin = s_.edit_starts == nullptr ? 0 : s_.edit_starts[i];
      const int32_t count = s_.edit_starts == nullptr ? 0 : s_.edit_starts[i + 1] - begin;
      const uint32_t* mask = s_.masks == nullptr ? nullptr : s_.masks + i * s_.mask_words;
      if (s_.wants[i] == kDraw) note_unedited(i, x, base, n);
      // Where only the best is wanted, nobody reads what the mask forbids.
      k.edit_tile(x, base, n, s_.wants[i] == kArgmax ? nullptr : mask, s_.edits + begin, count);
      k.best_tile(x, base, n, mask, summaries(row, true) + v);
    }
    if (s_.wants[i] == kDraw) std::memcpy(drawn_row(row) + base, x, (size_t)n * 4);
    if (s_.wants[i] == kTopK && s_.top_k > 0) {
      const int64_t at = ((int64_t)row * token_tiles_ + v) * s_.top_k;
      k.top_k_tile(x, n, base, s_.top_k, top_ids_.data() + at, top_values_.data() + at);
    }
  }
}

// The edits of an output whose tokens lie in [from, end).
static std::pair<int64_t, int64_t> edits_of(const Step& s, int32_t output, int32_t from,
                                            int32_t end) {
  if (s.edit_starts == nullptr) return {0, 0};
  const Edit* last = s.edits + s.edit_starts[output + 1];
  const auto is_before = [](const Edit& edit, int32_t token) { return edit.token < token; };
  const Edit* first = std::lower_bound(s.edits + s.edit_starts[output], last, from, is_before);
  return {first - s.edits, std::lower_bound(first, last, end, is_before) - s.edits};
}

void Run::note_unedited(int32_t output, const float* x, int32_t base, int32_t n) {
  const auto [begin, end] = edits_of(s_, output, base, base + n);
  for (int64_t e = begin; e < end; ++e) unedited_[e] = x[s_.edits[e].token - base];
}

// From the whole row: the weights are of what is likeliest in it, which no tile knows.
void Run::draw(int32_t row, int32_t likeliest, int32_t* weights) {
  const int32_t i = scored_[row];
  const float* x = drawn_row(row);
  const int32_t token = p_.kernels_->rows->draw(x, parts_.ops.back().tokens, likeliest,
                                                s_.temperatures[i], s_.uniforms[i], weights);
  s_.drawn[places_[row]] = token;
  float logit = std::numeric_limits<float>::quiet_NaN();
  if (token >= 0) {
    const auto [begin, end] = edits_of(s_, i, token, token + 1);
    logit = begin < end ? unedited_[begin] : x[token];
  }
  s_.drawn_logits[places_[row]] = logit;
}

void Run::merge(int32_t row, int thread) {
  const RowKernels& k = *p_.kernels_->rows;
  const int32_t i = scored_[row];
  TileSummary whole;
  k.merge_summaries(summaries(row, false), token_tiles_, &whole);
  s_.log_sum_exp[i] = log_sum_exp(&whole);
  if (edited(i)) k.merge_summaries(summaries(row, true), token_tiles_, &whole);
  s_.argmax[i] = whole.best;
  if (s_.wants[i] == kDraw) draw(row, whole.best, reinterpret_cast<int32_t*>(p_.scratch_[thread]));
  if (s_.wants[i] == kTopK && s_.top_k > 0) {
    const int64_t at = (int64_t)row * token_tiles_ * s_.top_k;
    k.merge_top_k(top_ids_.data() + at, top_values_.data() + at, token_tiles_, s_.top_k,
                  s_.top_ids + (int64_t)i * s_.top_k, s_.top_logits + (int64_t)i * s_.top_k);
  }
}

}  // namespace octavo
