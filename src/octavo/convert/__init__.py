"""Writes a model as a directory in Hugging Face's layout: a GGUF file's, or one with another number
of KV heads."""
