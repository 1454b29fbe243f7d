// run_head.cpp: the head: logits by fixed vocabulary tiles, edited, summarised and merged in index
// order.
#include <algorithm>
#include <cstring>

#include "program/run.h"

namespace octavo {

constexpr int32_t kVocabPanels = kVocabTile / 16;

void Run::plan_head() {
  const OpRecord& op = parts_.ops.back();
  const Weight& w = matrix(op, 0);
  vocab_tiles_ = divide_up(w.panels, kVocabPanels);
  token_tiles_ = divide_up(op.tokens, kVocabTile);
  summaries_.resize((size_t)2 * s_.outputs * token_tiles_);
  if (s_.top_k > 0) {
    top_ids_.resize((size_t)s_.outputs * token_tiles_ * s_.top_k);
    top_values_.resize(top_ids_.size());
  }
  head_acts_.resize(act_row_bytes(op.row_kind, w.cols) * s_.outputs + 64);
  for (int32_t i = 0, logits = 0, hidden = 0; i < s_.outputs; ++i)
    result_rows_.push_back(s_.wants[i] == kLogits   ? logits++
                           : s_.wants[i] == kHidden ? hidden++
                                                    : 0);
}

bool Run::edited(int32_t output) const {
  return s_.masks != nullptr ||
         (s_.edit_starts != nullptr && s_.edit_starts[output + 1] > s_.edit_starts[output]);
}
TileSummary* Run::summaries(int32_t output, bool after_edits) {
  return summaries_.data() + ((int64_t)after_edits * s_.outputs + output) * token_tiles_;
}

void Run::head(const OpRecord& op, int32_t index, int thread) {
  if (s_.outputs == 0) return;
  const Weight& w = matrix(op, 0);
  const Acts acts = {
      reinterpret_cast<uint8_t*>(align64(reinterpret_cast<int64_t>(head_acts_.data()))),
      op.row_kind, s_.outputs, w.cols};
  float* scratch = reinterpret_cast<float*>(p_.scratch_[thread]);
  share_rows(index, s_.outputs, [&](int32_t i) {
    const float* x = rows_of(op.x, s_.output_rows[i]);
    if (op.norm_kind >= 0) {
      norm(op, x, w.cols, scratch);
      x = scratch;
    }
    if (s_.wants[i] == kHidden)
      std::memcpy(s_.hidden + (int64_t)result_rows_[i] * w.cols, x, (size_t)w.cols * 4);
    p_.kernels_->matmul->quantize(x, &acts, i, 0, w.cols);
  });
  pool_.barrier();
  const int32_t tiles = tile_count(s_.outputs), blocks = divide_up(tiles, kBlockTiles);
  share(index, vocab_tiles_ * blocks, [&](int32_t unit) {
    const int32_t tile0 = unit / vocab_tiles_ * kBlockTiles;
    vocab_tile(op, w, acts, unit % vocab_tiles_, tile0, std::min(tile0 + kBlockTiles, tiles),
               scratch);
  }, 1);
  pool_.barrier();
  share(index, s_.outputs, [&](int32_t i) { merge(i); }, 2);
}

void Run::vocab_tile(const OpRecord& op, const Weight& w, const Acts& acts, int32_t v,
                     int32_t tile0, int32_t tile1, float* logits) {
  const RowKernels& k = *p_.kernels_->rows;
  const int32_t row0 = tile_begin(s_.outputs, tile0), row1 = tile_begin(s_.outputs, tile1);
  const int32_t base = v * kVocabTile, rows = std::min(kVocabTile, w.rows - base);
  const int32_t n = std::min(rows, op.tokens - base);  // that are tokens
  p_.kernels_->matmul->matmul(&w, v * kVocabPanels, std::min((v + 1) * kVocabPanels, w.panels),
                              &acts, tile0, tile1, {.bias = vector(op, 2), .scale = op.scale},
                              logits - (int64_t)row0 * kVocabTile, kVocabTile);
  for (int32_t i = row0; i < row1; ++i) {
    float* x = logits + (int64_t)(i - row0) * kVocabTile;
    if (op.softcap > 0.0f) k.softcap(x, op.softcap, rows, x);
    if (s_.wants[i] == kLogits)
      std::memcpy(s_.logits + (int64_t)result_rows_[i] * w.rows + base, x, (size_t)rows * 4);
    if (n <= 0) continue;
    k.summarize_tile(x, n, base, summaries(i, false) + v);
    if (edited(i)) {
      const int32_t begin = s_.edit_starts == nullptr ? 0 : s_.edit_starts[i];
      const int32_t count = s_.edit_starts == nullptr ? 0 : s_.edit_starts[i + 1] - begin;
      k.edit_tile(x, base, n, s_.masks == nullptr ? nullptr : s_.masks + i * s_.mask_words,
                  s_.edits + begin, count);
      k.summarize_tile(x, n, base, summaries(i, true) + v);
    }
    if (s_.wants[i] == kTopK && s_.top_k > 0) {
      const int64_t at = ((int64_t)i * token_tiles_ + v) * s_.top_k;
      k.top_k_tile(x, n, base, s_.top_k, top_ids_.data() + at, top_values_.data() + at);
    }
  }
}

void Run::merge(int32_t i) {
  const RowKernels& k = *p_.kernels_->rows;
  TileSummary whole;
  k.merge_summaries(summaries(i, false), token_tiles_, &whole);
  s_.log_sum_exp[i] = log_sum_exp(&whole);
  if (edited(i)) k.merge_summaries(summaries(i, true), token_tiles_, &whole);
  s_.argmax[i] = whole.best;
  if (s_.wants[i] == kTopK && s_.top_k > 0) {
    const int64_t at = (int64_t)i * token_tiles_ * s_.top_k;
    k.merge_top_k(top_ids_.data() + at, top_values_.data() + at, token_tiles_, s_.top_k,
                  s_.top_ids + (int64_t)i * s_.top_k, s_.top_logits + (int64_t)i * s_.top_k);
  }
}

}  // namespace octavo
