"""Smaller networks: low rank, pruning, and what they cost in score and time."""
