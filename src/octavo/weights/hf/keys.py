"""The fields of a config.json: each is read, harmless, or refused.

Comes in: what `config` has not read. Goes out: why the model cannot be run, or nothing. A field
that is left out may change every answer, so what is not listed here is refused by its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from octavo.weights.hf.json_fields import Fields, shown_json

# Whatever these say, the logits are the same.
_HARMLESS = frozenset(
    (
        # who wrote the file, and with what
        "_name_or_path", "_commit_hash", "transformers_version", "transformers.js_config",
        "unsloth_fixed", "unsloth_version", "is_llama_config", "auto_map", "tokenizer_class",
        # how weights were stored, drawn and trained
        "dtype", "torch_dtype", "use_bfloat16", "initializer_range", "attention_dropout",
        "hidden_dropout", "hidden_dropout_prob", "attention_probs_dropout_prob", "embd_pdrop",
        "resid_pdrop", "attn_pdrop", "residual_dropout", "embedding_dropout", "dropout",
        "activation_dropout", "layerdrop", "emb_pdrop", "init_std",
        "gradient_checkpointing", "pretraining_tp",
        # how transformers computes and what it returns
        "use_cache", "cache_implementation", "_attn_implementation", "attn_implementation",
        "_attn_implementation_autoset", "chunk_size_feed_forward", "torchscript",
        "output_attentions", "output_hidden_states", "return_dict", "return_dict_in_generate",
        "output_scores", "ignore_keys_at_rope_validation", "max_window_layers",
        "sliding_window_size",  # Gemma 2's, beside sliding_window, which is read
        "attention_softmax_in_fp32", "scale_attention_softmax_in_fp32", "reorder_and_upcast_attn",
        "inference_runner", "max_batch_size", "max_sequence_length", "pad_key_length",
        "pre_allocate_kv_cache", "validate_runner_input",
        # read by the scalings that begin where the trained context ends
        "original_max_position_embeddings",
        # ids that the tokenizer's files tell
        "bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "cls_token_id",
        "unk_token_id", "decoder_start_token_id", "forced_bos_token_id", "forced_eos_token_id",
        # of heads that classify
        "id2label", "label2id", "num_labels", "problem_type", "finetuning_task",
        "task_specific_params", "prefix", "summary_type", "summary_use_proj",
        "summary_activation", "summary_proj_to_labels", "summary_first_dropout",
        # of generation, which old files kept here; transformers reads generation_config.json
        "max_length", "min_length", "do_sample", "early_stopping", "num_beams", "num_beam_groups",
        "diversity_penalty", "temperature", "top_k", "top_p", "typical_p", "repetition_penalty",
        "length_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "bad_words_ids",
        "num_return_sequences", "remove_invalid_values", "exponential_decay_length_penalty",
        "suppress_tokens", "begin_suppress_tokens", "tf_legacy_loss", "is_decoder",
    )
)  # fmt: skip

# The values at which a field changes nothing; any other changes the arithmetic.
_WITHOUT_EFFECT: Mapping[str, tuple[object, ...]] = MappingProxyType(
    {
        "_remove_final_layer_norm": (False,),
        "add_cross_attention": (False,),
        "apply_residual_connection_post_layernorm": (False,),
        "attention_bias": (False,),
        "attn_logit_softcapping": (),
        "cross_attention_hidden_size": (),
        "final_logit_softcapping": (),
        "full_attn_mod": (1,),
        "interpolate_factor": (1,),
        "is_encoder_decoder": (False,),
        "lm_head_bias": (False,),
        "logit_scale": (),
        "mlp_bias": (False,),
        "mlp_type": ("default",),
        "norm_type": ("layer_norm",),
        "normalization_function": ("rmsnorm",),
        "partial_rotary_factor": (1,),
        "pruned_heads": ({},),
        "rope_interleaved": (False,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "scale_attn_weights": (True,),
        "tie_encoder_decoder": (False,),
        "use_bidirectional_attention": (False,),
        "use_mrope": (False,),
    }
)


def refusal(fields: Fields) -> str:
    """Say which of the fields not read makes it another model; "" if none does."""
    for name, value in fields.values.items():
        if name in fields.read or name in _HARMLESS or value is None:
            continue
        if name not in _WITHOUT_EFFECT:
            return (
                f"{fields.said(name)}: Octavo does not know this field, and leaving it out could "
                "change the answers; where it changes none, take it out of the file"
            )
        usual = _WITHOUT_EFFECT[name]
        if value not in usual:
            only = " or ".join(map(shown_json, usual)) or "null"
            return f"{fields.said(name)}: only {only} is supported"
    return ""
