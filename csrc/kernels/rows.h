// rows.h: the table of functions on rows of floats (norm, RoPE, activations, scaling, the head over
// vocabulary tiles, the sampler).
//
// One row at a time; the functions check nothing and know nothing of threads, batches or packed
// weights.
//
// Exactness: every result is one fixed order of operations over the row alone. The head works on
// tiles of kVocabTile tokens and merges them in index order, so its results do not depend on which
// thread computed which tile. The sampler turns probabilities into integer weights; their sums are
// exact, so no order of summation can show.
#pragma once
#include <cstddef>
#include <cstdint>

#include "kernels/log.h"

namespace octavo {

constexpr int32_t kVocabTile = 1024;
constexpr int32_t kMaxVocab = 524288;  // tokens; of twice as many a sum could leave its lanes
constexpr int32_t kMaxTopK = 64;

enum RopeStyle : int32_t {
  kRopeInterleaved = 0,  // pairs (2i, 2i + 1)
  kRopeHalves = 1,       // pairs (i, i + rotary_dim/2)
};
constexpr const char* kRopeStyleNames[] = {"interleaved", "half"};  // octavo.program.ops.RopeStyle
constexpr int32_t kNumRopeStyles = 2;

enum NormKind : int32_t { kRmsNorm, kLayerNorm };
constexpr const char* kNormNames[] = {"rms", "layer"};  // octavo.program.ops.NormKind
constexpr int32_t kNumNorms = 2;

// Those from kNumUngated on have a gate.
enum Activation : int32_t { kSilu, kGelu, kGeluTanh, kRelu, kClampedGlu };
constexpr const char* kActivationNames[] = {"silu", "gelu", "gelu_tanh", "relu",
                                            "clamped_glu"};  // octavo.program.ops.GateKind
constexpr int32_t kNumUngated = 4, kNumActivations = 5;

// What a router's logits are turned into (octavo.program.ops.Route).
enum RouteScore : int32_t { kSoftmax, kSigmoid, kSoftmaxOfChosen };
constexpr const char* kRouteScoreNames[] = {"softmax", "sigmoid", "softmax_of_chosen"};
constexpr int32_t kNumRouteScores = 3;
constexpr int32_t kMaxExperts = 1024;  // of a layer

struct Routing {
  int32_t experts, used;        // used <= groups_used * (experts / groups)
  int32_t score;                // a RouteScore
  int32_t groups, groups_used;  // groups of two experts or more, if there is a bias
  bool renormalise;
  float scale;
};

struct TileSummary {
  float max;     // of the logits that are not NaN; -inf if there is none
  float sum;     // of exp(x - max); NaN if a logit is NaN or +inf, 0 if all are -inf
  int32_t best;  // lowest token whose logit is max; the tile's first token if all are NaN
};

struct Edit {  // the same bytes as octavo.batch.EDIT
  int32_t token;
  float scale;  // x > 0 ? x / scale : x * scale (repetition penalty)
  float add;    // then x + add
};

static inline float log_sum_exp(const TileSummary* s) {
  return (float)((double)s->max + natural_log((double)s->sum));
}

// Scratch of `sample`, 8-byte aligned: a key of 8 bytes and a weight of 4 for each token.
static inline int64_t sample_scratch_bytes(int32_t n) { return (int64_t)((n + 15) / 16 * 16) * 12; }

struct RowKernels {
  // r = 1 / sqrt(sum(x*x) / n + eps), out = x * r * weight, with a bias fma(x * r, weight, bias);
  // the weight or the bias may be null. A layer norm does this to x - sum(x) / n. A sum is 16
  // chains (acc + x; fma(x, x, acc)) over k % 16, then the tree of reduce_add. out may be x.
  void (*norm)(int32_t kind, const float* x, const float* weight, const float* bias, float eps,
               int32_t n, float* out);

  // x (heads, dim), cos and sin (rotary_dim/2) of this row's position: a' = fma(a, c, -(b*s)), b' =
  // fma(b, c, a*s) for every pair (a, b); values from rotary_dim on stay.
  void (*rope)(float* x, int32_t heads, int32_t dim, int32_t rotary_dim, const float* cos,
               const float* sin, int32_t style);

  // Silu is x * sigmoid(x), gelu_tanh x * sigmoid(x * (a + b * x^2)), gelu x * phi(x) (phi.h), relu
  // x or 0. Finite wherever x is below 1e38; a NaN stays one. out may be x.
  void (*activate)(const float* x, int32_t activation, int32_t n, float* out);

  // The activation of gate, times up. Of clamped_glu up is kept within 7 of 0 and gate at 7 or
  // below, and it is gate * sigmoid(1.702 * gate) * (up + 1). out may be gate or up.
  void (*gate_mul)(const float* gate, const float* up, int32_t activation, int32_t n, float* out);

  // x + y, one sum each. out may be x or y.
  void (*add)(const float* x, const float* y, int32_t n, float* out);

  // x * factor, one product each. out may be x.
  void (*scale)(const float* x, float factor, int32_t n, float* out);

  // x between -limit and limit; a NaN stays one. out may be x.
  void (*clamp)(const float* x, float limit, int32_t n, float* out);

  // out + factor * x, rounded once.
  void (*add_scaled)(const float* x, float factor, int32_t n, float* out);

  // The experts of a row: their numbers, best first, ties to the lowest, then the factor of each:
  // (2 * used) from (experts,) logits. A score that is NaN is chosen last. The bias may be null; it
  // is added to what chooses.
  void (*route)(const Routing* routing, const float* logits, const float* choice_bias, float* out);

  // cap * tanh(x / cap) of each, tanh as in tanh.h. cap > 0; out may be x.
  void (*softcap)(const float* x, float cap, int32_t n, float* out);

  // Logits of tokens [base, base + n).
  void (*summarize_tile)(const float* logits, int32_t n, int32_t base, TileSummary* out);
  void (*merge_summaries)(const TileSummary* tiles, int32_t count,
                          TileSummary* out);  // consecutive tiles, in order

  // Applies the edits whose tokens lie in [base, base + n), then sets -inf where bit t of
  // mask_words (of the whole vocabulary; may be null) is 0. Edits are sorted by token; base % 16 ==
  // 0.
  void (*edit_tile)(float* logits, int32_t base, int32_t n, const uint32_t* mask_words,
                    const Edit* edits, int32_t num_edits);

  // What summarize_tile finds after edit_tile has set the mask (which may be null), but for the
  // sum, which is 0. Reads no logit of 16 that are all masked.
  void (*best_tile)(const float* logits, int32_t base, int32_t n, const uint32_t* mask_words,
                    TileSummary* out);

  // The k (0 to kMaxTopK) largest, best first, ties to the lowest token. NaN and -inf are never
  // listed; places left over get token -1 and -inf. A value of -0 comes out as +0. n may be a whole
  // vocabulary.
  void (*top_k_tile)(const float* logits, int32_t n, int32_t base, int32_t k, int32_t* ids,
                     float* values);
  void (*merge_top_k)(const int32_t* ids, const float* values, int32_t tiles, int32_t k,
                      int32_t* out_ids,
                      float* out_values);  // ids, values (tiles, k), consecutive tiles in order

  // Draws one token, or -1 if every logit is -inf or NaN; those are never drawn, nor are tokens
  // 2^31 times less likely than the best. Weight of a token: 2^30 * exp((x - max) / temperature),
  // rounded; tokens below min_p of the best are dropped, then all but the top_k (0 = all) best,
  // then all but the smallest set, best first, that holds top_p of the weight that is left (at
  // least one). "Best" is the larger logit, ties to the lowest token. The draw is the first token,
  // in ascending order, where the running weight exceeds floor(u * total). `likeliest`: a token of
  // the largest logit (if all are NaN, any); negative: to be found.
  int32_t (*sample)(const float* logits, int32_t n, int32_t likeliest, float temperature,
                    int32_t top_k, float top_p, float min_p, double u, void* scratch);

  // What `sample` draws if nothing is dropped, in scratch of kVocabTile weights.
  int32_t (*draw)(const float* logits, int32_t n, int32_t likeliest, float temperature, double u,
                  int32_t* weights);
};

}  // namespace octavo
