"""Attention for models of transformers: one function that chooses among kernels for each shape of call."""

from runner.kernels.attention.apply import choices, use_attention
from runner.kernels.attention.call import Pages
from runner.kernels.attention.dispatch import BACKENDS, Entry, register

__all__ = ["BACKENDS", "Entry", "Pages", "choices", "register", "use_attention"]
