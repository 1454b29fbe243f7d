"""The paged KV cache: which blocks there are, who holds them, and the memory behind them."""
