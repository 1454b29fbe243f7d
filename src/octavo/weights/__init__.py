"""Weights: model files on disk, their formats and where they are; no kernel layouts."""
