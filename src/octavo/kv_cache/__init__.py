"""The bookkeeping of the paged KV cache: which blocks there are, who holds and who finds them."""
