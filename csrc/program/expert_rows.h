// expert_rows.h: the rows of a step in the order of the experts that they meet, and where what
// becomes of them lies.
//
// A pair is a row and one of its experts. The pairs of an expert are one after the other, so that
// its matrices meet them as the rows of one matmul. Knows nothing of threads.
#pragma once
#include <cstdint>
#include <vector>

#include "kernels/matmul_layout.h"
#include "program/program.h"

namespace octavo {

// Offsets in bytes, for so many pairs.
struct ExpertPlaces {
  int64_t in[3];  // rows packed for gate, for up (the same where both read the same), for down
  int64_t made;   // (pairs, out width) float
  int64_t bytes;
};

// The acts of an expert begin at a line of their own.
static inline int64_t expert_acts_offset(int32_t kind, int32_t cols, int64_t first_pair,
                                         int64_t expert) {
  return (first_pair * act_row_bytes(kind, cols) + 63) / 64 * 64 + expert * 64;
}

inline ExpertPlaces expert_places(const ProgramParts& parts, const OpRecord& op, int64_t pairs) {
  ExpertPlaces places{};
  int64_t end = 0;
  for (int i = 0; i < 3; ++i) {
    const bool shared = i == 1 && op.row_kind[1] == op.row_kind[0];
    places.in[i] = shared ? places.in[0] : end;
    if (shared) continue;
    end += expert_acts_offset(op.row_kind[i], parts.matrices[op.matrix[i]].cols, pairs, op.experts);
  }
  places.made = end;
  places.bytes = end + pairs * parts.buffers[op.out].width * 4;
  return places;
}

// Memory is taken where one is made, enough for any op of a program: threads of the pool, where
// nothing may fail, only fill it.
struct ExpertRows {
  std::vector<int32_t> begin;                   // (experts + 1,) first pair of each
  std::vector<int32_t> rows;                    // (pairs,) row of each
  std::vector<int32_t> places;                  // (rows * used,) the pair of a row's rank
  std::vector<int32_t> gate_begin, down_begin;  // (experts + 1,) first unit of each
  std::vector<int32_t> next;                    // (experts,) where the next pair of each goes
  ExpertPlaces at;

  ExpertRows(const ProgramParts& parts, int64_t step_rows) {
    for (const OpRecord& op : parts.ops) {
      if (op.code != kExperts) continue;
      for (auto* each : {&begin, &gate_begin, &down_begin, &next}) each->reserve(op.experts + 1);
      for (auto* each : {&rows, &places}) each->reserve(step_rows * op.used);
    }
  }

  int32_t pairs() const { return begin.back(); }
  int32_t rows_of(int32_t expert) const { return begin[expert + 1] - begin[expert]; }
};

}  // namespace octavo
