"""Measuring: how fast a model runs here, beside what this machine could do in the same minute."""
