"""Architectures: each file builds one family's program from its config."""
