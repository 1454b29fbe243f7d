"""Weights: model files, where they are and what they say, and what kernels get of them."""
