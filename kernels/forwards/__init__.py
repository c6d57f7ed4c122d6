"""Forwards in which kernels stand for what transformers' modules do: one file a kind of module."""
