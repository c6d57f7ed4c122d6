"""Portuguese text as it is spoken: a pipeline of named steps, each of which can be switched.

``normaliser(settings)`` gives the function, ``describe(settings)`` what it does, for results to keep.
"""

from runner.asr.portuguese.pipeline import VERSION, Settings, Step, describe, normaliser, steps

__all__ = ["VERSION", "Settings", "Step", "describe", "normaliser", "steps"]
