"""What transformers' own `ParakeetFeatureExtractor` makes of two sounds, kept because it needs librosa and we do not.

`parakeet_golden.npz` was written by `python -m tests.asr.parakeet_golden` in an environment that had librosa 0.11.0
beside transformers 5.19.0.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from transformers import ParakeetFeatureExtractor

from tests.asr import tiny

FILE = Path(__file__).with_name("parakeet_golden.npz")
# name -> (seconds, settings); the lengths are no multiple of the hop
CASES: dict[str, tuple[float, dict[str, Any]]] = {
    "default": (0.4137, {}),
    "other": (0.3071, {"feature_size": 128, "hop_length": 128, "win_length": 320, "preemphasis": 0.9}),
}


def main() -> None:
    """Write the file anew."""
    made = {}
    for name, (seconds, settings) in CASES.items():
        extract = ParakeetFeatureExtractor(**settings)
        found = extract(tiny.sound(seconds, seed=7), sampling_rate=16000, return_tensors="np")
        made[name] = found["input_features"][0, : int(found["attention_mask"].sum())]
    np.savez_compressed(FILE, **made)


if __name__ == "__main__":
    main()
