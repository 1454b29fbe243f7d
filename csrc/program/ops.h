// ops.h: the ops by number and name, and the record of one. The core exports both tables, OPS and
// RECORD_FIELDS; octavo.program.encode looks up by name, so order and numbers are said here only.
#pragma once
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <type_traits>

namespace octavo {

enum OpCode : int32_t {
  kEmbed,
  kQuantize,
  kNormQuantize,
  kMatmul,
  kStoreKV,
  kAttend,
  kAttendQuantize,
  kGateUp,
  kQKV,
  kRoute,
  kExperts,
  kSlice,
  kHeadLinear,
  kJoin,
  kHead,
  kFirstRowOp,  // codes from here on are the rows of kRowOps (row_ops.h)
};
constexpr const char* kOpNames[] = {
    "Embed",   "Quantize",       "NormQuantize", "Matmul", "StoreKV",
    "Attend",  "AttendQuantize", "GateUp",       "QKV",    "Route",
    "Experts", "Slice",          "HeadLinear",   "Join",   "Head"};
static_assert(std::size(kOpNames) == kFirstRowOp);

// Unused indices are -1.
struct OpRecord {
  int32_t code;
  int32_t x, y, add, out;  // buffers
  int32_t matrix[3];       // packed weights
  int32_t table;           // of an embedding whose rows are read from a file; else -1
  // Norms and biases; of a norm its weight and bias, and of the head its own bias; of QKV three
  // biases, then the norms of q's and k's heads.
  int32_t vector[5];
  int32_t heads, head_dim;
  int32_t rope_table, rope_style;  // of QKV -1: no head is turned
  int32_t norm_kind;               // of the head -1: its rows are normed
  int32_t activation;
  // The ActKinds that an op packs rows to itself: of the head, of heads' matrices, or of experts'
  // gate, up and down.
  int32_t row_kind[3];
  int32_t group, layer;  // KV layer group, layer inside it
  // Of the embedding: the row of position 0 in matrix[1]. Of a slice: its first column.
  int32_t offset;
  int32_t original;       // positions that are scaled alike
  int32_t tokens;         // of the head: rows of its matrix that are tokens, the first ones
  int32_t experts, used;  // of a layer, of a row
  int32_t score, renormalise, expert_groups, groups_used;  // of Route (rows.h)
  int32_t slopes;                                          // of attention
  float eps, scale, softcap;
};

struct BufferSpec {
  int32_t width;  // columns
  int32_t kind;   // -1: float rows; else the ActKind of packed rows
};

struct RecordField {
  const char* name;
  const char* type;  // as numpy spells it
  int32_t count;
  size_t offset;
};
#define OCTAVO_FIELD(record, field)                                                              \
  RecordField {                                                                                  \
    #field,                                                                                      \
        std::is_same_v<std::remove_all_extents_t<decltype(record::field)>, float> ? "f4" : "i4", \
        sizeof(record::field) / 4, offsetof(record, field)                                       \
  }
constexpr RecordField kRecordFields[] = {
    OCTAVO_FIELD(OpRecord, code),
    OCTAVO_FIELD(OpRecord, x),
    OCTAVO_FIELD(OpRecord, y),
    OCTAVO_FIELD(OpRecord, add),
    OCTAVO_FIELD(OpRecord, out),
    OCTAVO_FIELD(OpRecord, matrix),
    OCTAVO_FIELD(OpRecord, table),
    OCTAVO_FIELD(OpRecord, vector),
    OCTAVO_FIELD(OpRecord, heads),
    OCTAVO_FIELD(OpRecord, head_dim),
    OCTAVO_FIELD(OpRecord, rope_table),
    OCTAVO_FIELD(OpRecord, rope_style),
    OCTAVO_FIELD(OpRecord, norm_kind),
    OCTAVO_FIELD(OpRecord, activation),
    OCTAVO_FIELD(OpRecord, row_kind),
    OCTAVO_FIELD(OpRecord, group),
    OCTAVO_FIELD(OpRecord, layer),
    OCTAVO_FIELD(OpRecord, offset),
    OCTAVO_FIELD(OpRecord, original),
    OCTAVO_FIELD(OpRecord, tokens),
    OCTAVO_FIELD(OpRecord, experts),
    OCTAVO_FIELD(OpRecord, used),
    OCTAVO_FIELD(OpRecord, score),
    OCTAVO_FIELD(OpRecord, renormalise),
    OCTAVO_FIELD(OpRecord, expert_groups),
    OCTAVO_FIELD(OpRecord, groups_used),
    OCTAVO_FIELD(OpRecord, slopes),
    OCTAVO_FIELD(OpRecord, eps),
    OCTAVO_FIELD(OpRecord, scale),
    OCTAVO_FIELD(OpRecord, softcap),
};
constexpr RecordField kBufferFields[] = {OCTAVO_FIELD(BufferSpec, width),
                                         OCTAVO_FIELD(BufferSpec, kind)};
#undef OCTAVO_FIELD

// Whether fields, one after the other, are all the bytes of a record.
template <size_t kFields>
constexpr bool fill(const RecordField (&fields)[kFields], size_t bytes) {
  size_t end = 0;
  for (const RecordField& field : fields) {
    if (field.offset != end) return false;
    end += 4 * (size_t)field.count;
  }
  return end == bytes;
}
static_assert(fill(kRecordFields, sizeof(OpRecord)) && fill(kBufferFields, sizeof(BufferSpec)));

}  // namespace octavo
