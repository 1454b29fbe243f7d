// rows_parts.h: the functions behind RowKernels, which four sources of one ISA level share out.
#pragma once
#include "kernels/rows.h"

namespace octavo::OCTAVO_ISA {

void route(const Routing* routing, const float* logits, const float* choice_bias, float* out);
void softcap(const float* x, float cap, int32_t n, float* out);
void summarize_tile(const float* logits, int32_t n, int32_t base, TileSummary* out);
void merge_summaries(const TileSummary* tiles, int32_t count, TileSummary* out);
void edit_tile(float* logits, int32_t base, int32_t n, const uint32_t* mask_words,
               const Edit* edits, int32_t num_edits);
void best_tile(const float* logits, int32_t base, int32_t n, const uint32_t* mask_words,
               TileSummary* out);
void top_k_tile(const float* logits, int32_t n, int32_t base, int32_t k, int32_t* ids,
                float* values);
void merge_top_k(const int32_t* ids, const float* values, int32_t tiles, int32_t k,
                 int32_t* out_ids, float* out_values);
int32_t sample(const float* logits, int32_t n, int32_t likeliest, float temperature, int32_t top_k,
               float top_p, float min_p, double u, void* scratch);
int32_t draw(const float* logits, int32_t n, int32_t likeliest, float temperature, double u,
             int32_t* weights);

}  // namespace octavo::OCTAVO_ISA
