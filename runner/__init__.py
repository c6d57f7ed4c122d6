"""From a spec to an artifact: plan it, run it, check it, keep it."""

__version__ = "0.1.0"
