// checks_of_parts.cpp: what is checked of a program beside its records: which ops it begins and
// ends with, and what groups of sinks are beside those whose first block they have.
#include <algorithm>
#include <string>

#include "program/checks.h"

namespace octavo {

// A step's tokens are checked against the first op's rows, and its outputs planned for the last op.
void check_ends(const ProgramParts& p) {
  const std::vector<OpRecord>& ops = p.ops;
  same("first op's code", kEmbed, ops.front().code);
  same("last op's code", kHead, ops.back().code);
  same("first op's table", -1, ops.front().table);
  below("first op's matrix", ops.front().matrix[0], (int64_t)p.matrices.size());
  for (size_t i = 1; i + 1 < ops.size(); ++i) {
    const bool of_file = ops[i].code == kEmbed && ops[i].table != -1;
    if (of_file && p.tables[ops[i].table].rows < p.embedding_rows())
      refuse("tables rows, at least", p.embedding_rows(), p.tables[ops[i].table].rows);
    const bool of_tokens = ops[i].code == kEmbed && !of_file && ops[i].matrix[0] != -1;
    if (of_tokens || ops[i].code == kHead)
      throw std::invalid_argument(
          "codes: expected one Embed of tokens, the first op, and one Head, the last");
  }
}

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
