"""One file per variant of `asr-quantize`: the folder listing is their registry.

Each has WHAT, a sentence for people; ``quantise(base, folder) -> Made``, which writes its weights; and
``load(variant, source, device=) -> Opened``.
"""
