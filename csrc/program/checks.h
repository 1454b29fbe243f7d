// checks.h: whether records may be run. What program.cpp and run_*.cpp index with is checked once
// for a program here, and once a step in step.h, so that they need not; what is wrong is a
// std::invalid_argument that says where.
#pragma once
#include "expect.h"
#include "program/program.h"

namespace octavo {

void check_ends(const ProgramParts& parts);
void check_sinks(const ProgramParts& parts, const LayerGroup& group);
void check_program(const ProgramParts& parts);

}  // namespace octavo
