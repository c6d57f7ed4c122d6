"""What several kernels share: Triton functions, launches and the rules for both."""
