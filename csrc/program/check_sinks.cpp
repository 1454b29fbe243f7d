// check_sinks.cpp: what groups of sinks must be beside those whose first block they have.
#include <algorithm>
#include <string>

#include "program/checks.h"

namespace octavo {

// The sinks of a group are the same layers and heads, in pages of another format.
void check_sinks(const ProgramParts& p, const LayerGroup& g) {
  below("groups sinks", g.sinks, (int64_t)p.groups.size());
  const LayerGroup& sinks = p.groups[g.sinks];
  if (!sinks.is_sinks || sinks.sinks >= 0 || g.is_sinks)
    throw std::invalid_argument("groups sinks: expected a group that has none itself");
  same("groups window, of sinks and beside them", 0, std::max(g.window, sinks.window));
  if (const char* problem = sinks_problem(g.layout, sinks.layout))
    throw std::invalid_argument(std::string("groups sinks: ") + problem);
}

}  // namespace octavo
