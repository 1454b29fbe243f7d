// checks.h: whether records may be run. What program.cpp and run_*.cpp index with is checked once for a program here,
// and once a step in step.h, so that they need not; what is wrong is a std::invalid_argument that says where.
#pragma once
#include <cstdint>
#include <stdexcept>
#include <string>

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

void check_program(const ProgramParts& parts);

}  // namespace octavo
