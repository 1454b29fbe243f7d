"""Harmony, as gpt-oss writes it: an answer is messages in channels, each with a header."""
