// route.cpp: which experts a row meets, and how much of what each makes. Defined beside
// RowKernels::route in rows.h.
#include "kernels/simd.h"

#include "kernels/activations.h"
#include "kernels/logits.h"
#include "kernels/rows_parts.h"

namespace octavo::OCTAVO_ISA {

// Added to what a row's factors are divided by: scores that are all 0 give factors of 0, as they do
// in DeepSeek-V3; no bit of a sum above 1e-12 changes.
static constexpr float kLeastSum = 1e-20f;

OCTAVO_INLINE void store_first(float* out, int32_t n, f32x16 v) {
  if (n >= 16) store_f(out, v);
  else store_f_mask(out, first_lanes(n), v);
}

// The sum is 16 chains over k % 16, then the tree of reduce_add. out may be x.
static void softmax(const float* x, int32_t n, float* out) {
  const f32x16 most = set1_f(largest_logit(x, n));
  f32x16 sum = zero_f();
  for (int32_t k = 0; k < n; k += 16) {
    const f32x16 e = exp2_poly(mul(sub(load_logits(x, k, n), most), set1_f(kLog2e)));
    sum = add(e, sum);
    store_first(out + k, n - k, e);
  }
  const f32x16 all = set1_f(reduce_add(sum));
  for (int32_t k = 0; k < n; k += 16) store_first(out + k, n - k, div(load_logits(out, k, n), all));
}

static void sigmoid(const float* x, int32_t n, float* out) {
  for (int32_t k = 0; k < n; k += 16)
    store_first(out + k, n - k, times_sigmoid(set1_f(1.0f), load_logits(x, k, n)));
}

// The greatest of x that is not taken yet, and now is; the lowest of several. x has no NaN.
static int32_t take_best(const float* x, int32_t n, bool* taken) {
  int32_t best = -1;
  for (int32_t i = 0; i < n; i++)
    if (!taken[i] && (best < 0 || x[i] > x[best])) best = i;
  taken[best] = true;
  return best;
}

static float number_or_least(float x) { return x == x ? x : kMinusInf; }

// -inf for the experts of all groups but the best. With a bias a group is as good as two experts.
static void leave_groups_out(const Routing& r, bool of_two, float* choosing) {
  const int32_t size = r.experts / r.groups;
  float goodness[kMaxExperts];
  bool counted[kMaxExperts] = {}, used[kMaxExperts] = {};
  for (int32_t g = 0; g < r.groups; g++) {
    const float* group = choosing + g * size;
    float sum = group[take_best(group, size, counted + g * size)];
    if (of_two) sum += group[take_best(group, size, counted + g * size)];
    goodness[g] = number_or_least(sum);
  }
  for (int32_t i = 0; i < r.groups_used; i++) take_best(goodness, r.groups, used);
  for (int32_t i = 0; i < r.experts; i++)
    if (!used[i / size]) choosing[i] = kMinusInf;
}

void route(const Routing* routing, const float* logits, const float* choice_bias, float* out) {
  const Routing& r = *routing;
  float scores[kMaxExperts], choosing[kMaxExperts];
  if (r.score == kSoftmax) softmax(logits, r.experts, scores);
  else if (r.score == kSigmoid) sigmoid(logits, r.experts, scores);
  for (int32_t i = 0; i < r.experts; i++) {
    if (r.score == kSoftmaxOfChosen) scores[i] = logits[i];
    choosing[i] = number_or_least(choice_bias ? scores[i] + choice_bias[i] : scores[i]);
  }
  if (r.groups > 1) leave_groups_out(r, choice_bias != nullptr, choosing);
  float* factors = out + r.used;
  bool taken[kMaxExperts] = {};
  for (int32_t rank = 0; rank < r.used; rank++) {
    const int32_t best = take_best(choosing, r.experts, taken);
    out[rank] = (float)best;
    factors[rank] = scores[best];
  }
  if (r.score == kSoftmaxOfChosen) softmax(factors, r.used, factors);
  float sum = 1.0f;
  if (r.renormalise) {
    sum = factors[0];
    for (int32_t rank = 1; rank < r.used; rank++) sum += factors[rank];
    sum += kLeastSum;
  }
  for (int32_t rank = 0; rank < r.used; rank++) factors[rank] = factors[rank] / sum * r.scale;
}

}  // namespace octavo::OCTAVO_ISA
