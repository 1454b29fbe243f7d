# EleutherAI's lm-evaluation-harness (pip install 'lm_eval[api]'): scores by /v1/completions with
# echo and logprobs, token ids by /tokenize and /tokenizer_info.
lm_eval --model local-completions --tasks lambada_openai --limit 20 \
  --model_args model=smollm2,base_url=http://127.0.0.1:8000/v1/completions,tokenizer_backend=remote
