// checks.h: whether records and steps may be run. Everything that program.cpp and run_*.cpp index with is checked
// here, once for a program and once a step, so that they need not; what is wrong is a std::invalid_argument that says where.
#pragma once
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "program/program.h"

namespace octavo {

[[noreturn]] inline void refuse(const std::string& what, int64_t expected, int64_t got) {
  throw std::invalid_argument(what + ": expected " + std::to_string(expected) + ", got " + std::to_string(got));
}
inline void same(const std::string& what, int64_t expected, int64_t got) {
  if (expected != got) refuse(what, expected, got);
}
inline void below(const std::string& what, int64_t value, int64_t end) {
  if (value < 0 || value >= end)
    throw std::invalid_argument(what + ": expected 0 to " + std::to_string(end - 1) + ", got " + std::to_string(value));
}

// What the records of a program point at.
struct ProgramParts {
  std::vector<OpRecord> ops;
  std::vector<BufferSpec> buffers;
  std::vector<Weight> matrices;
  std::vector<const float*> vectors;
  std::vector<int64_t> vector_sizes;
  std::vector<LayerGroup> groups;
  std::vector<int64_t> group_blocks;
  int64_t rope_positions = 0, rope_half = 0;
  int64_t max_rows = 0;

  int64_t vocab() const { return matrices[ops.back().matrix[0]].rows; }
  int64_t hidden() const { return matrices[ops.back().matrix[0]].cols; }
  int64_t embedding_rows() const { return matrices[ops.front().matrix[0]].rows; }
  int64_t count(const Step& step, int32_t want) const;  // outputs that want it
};

void check_program(const ProgramParts& parts);
void check_step(const ProgramParts& parts, const Step& step, int64_t num_edits);

}  // namespace octavo
