"""Portuguese speech without a network: eSpeak NG through ctypes, and seeded noise.

`espeakng-loader` ships the shared library and its data, so no system package is needed.
The same text, voice, rate and pitch give the same samples in any order and in any process.
"""

import _ctypes
import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import espeakng_loader
import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.float32]

SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS: the callback gets every sample before Synth returns
DONT_EXIT = 0x8000  # espeakINITIALIZE_DONT_EXIT: report missing data instead of ending the process
UTF8 = 1  # espeakCHARS_UTF8
RATE, VOLUME, PITCH = 1, 2, 3  # espeak_PARAMETER
RATES = range(80, 451)
PITCHES = range(100)
SEED = 1

_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
_one_at_a_time = threading.Lock()


def say(text: str, *, voice: str = "pt-br", rate: int = 170, pitch: int = 50) -> tuple[Samples, int]:
    """Speak `text`; return mono samples, float32 in [-1, 1), shape (n,), and their rate in Hz.

    `voice` is an eSpeak name with an optional variant (`pt`, `pt-br+f2`), `rate` is in words a
    minute (80..450), `pitch` runs from 0 to 99.
    """
    if not text.strip():
        raise ValueError("say() needs some text, got only white space.")
    if rate not in RATES or pitch not in PITCHES:
        raise ValueError(f"rate={rate} must lie in 80..450 and pitch={pitch} in 0..99.")
    with _one_at_a_time, _fresh_library() as (library, hertz):
        _set_voice(library, voice)
        for parameter, value in ((RATE, rate), (VOLUME, 100), (PITCH, pitch)):
            library.espeak_SetParameter(parameter, value, 0)
        return _synthesise(library, text), hertz


def add_noise(samples: Samples, snr_db: float, seed: int) -> Samples:
    """Mix in white noise at `snr_db` decibels below the clip's mean power; shape is kept.

    The result is scaled down only where it would otherwise clip. Digital silence stays silent.
    """
    noise = np.random.default_rng(seed).standard_normal(samples.shape).astype(np.float32)
    power = float(np.mean(np.square(samples, dtype=np.float64)))
    mixed = samples + noise * np.float32(np.sqrt(power / 10 ** (snr_db / 10)))
    peak = float(np.max(np.abs(mixed), initial=0.0))
    return (mixed / np.float32(max(peak, 1.0))).astype(np.float32)


@contextmanager
def _fresh_library() -> Iterator[tuple[ctypes.CDLL, int]]:
    """Load eSpeak, start it, and unload it again; yields the library and its rate in Hz.

    Its glottal phase and filter memory are static variables that neither espeak_Initialize nor
    a new voice resets, so a clip would depend on the clips before it. Loading costs 5 ms.
    """
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    try:
        data = espeakng_loader.get_data_path().encode()
        hertz = library.espeak_Initialize(SYNCHRONOUS, 0, data, DONT_EXIT)
        if hertz <= 0:
            raise RuntimeError("eSpeak NG found no voice data; reinstall espeakng-loader.")
        yield library, hertz
    finally:
        library.espeak_Terminate()
        _ctypes.dlclose(library._handle)


def _set_voice(library: ctypes.CDLL, voice: str) -> None:
    """Choose a voice; eSpeak itself takes an unknown variant in silence, so that is checked."""
    _, _, variant = voice.partition("+")
    known = "+" not in voice or Path(espeakng_loader.get_data_path(), "voices", "!v", variant).is_file()
    if not known or library.espeak_SetVoiceByName(voice.encode()) != 0:
        raise ValueError(f"eSpeak NG has no voice {voice!r}; try 'pt', 'pt-br' or 'pt-br+f2'.")


def _synthesise(library: ctypes.CDLL, text: str) -> Samples:
    """Run one utterance through a started library; shape (n,)."""
    chunks: list[NDArray[np.int16]] = []

    def collect(wave: "ctypes._Pointer[ctypes.c_short]", count: int, _events: int | None) -> int:
        if wave and count > 0:
            chunks.append(np.ctypeslib.as_array(wave, shape=(count,)).copy())
        return 0

    callback = _Callback(collect)
    library.espeak_SetSynthCallback(callback)
    library.espeak_ng_SetRandSeed(ctypes.c_long(SEED))
    ctypes.CDLL(None).srand(SEED)  # the Klatt voices draw from libc instead
    encoded = text.encode()
    size = ctypes.c_size_t(len(encoded) + 1)
    status = library.espeak_Synth(encoded, size, 0, 0, 0, UTF8, None, None)
    if status != 0:
        raise RuntimeError(f"eSpeak NG could not speak {text!r} (status {status}).")
    library.espeak_Synchronize()
    return np.concatenate(chunks).astype(np.float32) / np.float32(32768)
