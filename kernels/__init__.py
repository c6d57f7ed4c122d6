"""Triton kernels and the patches that use them. Imported as ``runner.kernels``; never sees a spec."""

__version__ = "0.0.0"
