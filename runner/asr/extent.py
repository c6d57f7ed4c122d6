"""How much sound a file's own bytes hold, where libsndfile would pass over a lack of it without a word.

libsndfile reads what is there of a wav or an ogg that was cut off, as if it were whole, and leaves out damaged pages of
an ogg: one wrong bit loses a second and moves all times behind it. Of an mp3 without a Xing header
it guesses the length from the first frames and never reads beyond: 13 of 40 s when a quiet start has a low bitrate.
"""

from __future__ import annotations

import zlib
from functools import lru_cache
from typing import BinaryIO, Literal

WAV_UNKNOWN = 0x7F00_0000  # bytes; writers to a pipe claim this much or more, meaning that they do not know
MP3_LOST = 1 << 16  # bytes without a frame, after which nothing more is looked for

_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_MP3_KBITS = {
    (True, 3): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 1): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 3): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 1): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}  # by (MPEG-1, 4 - layer number), ISO 11172-3 and 13818-3; bit fields 1 to 14
_MP3_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}  # by version


def wav_missing_s(file: BinaryIO) -> float:
    """Seconds of its `data` chunk that a RIFF file claims and does not have; 0 where it claims nothing sure."""
    size = file.seek(0, 2)
    if _at(file, 0, 4) != b"RIFF":
        return 0.0
    position, bytes_per_s = 12, 0
    while len(head := _at(file, position, 20)) >= 8:
        name, length = head[:4], int.from_bytes(head[4:8], "little")
        if name == b"fmt " and len(head) == 20:
            bytes_per_s = int.from_bytes(head[16:20], "little")
        if name == b"data":
            missing = position + 8 + length - size
            return missing / bytes_per_s if bytes_per_s and missing > 0 and length < WAV_UNKNOWN else 0.0
        position += 8 + length + length % 2
    return 0.0


def ogg_fault(file: BinaryIO) -> Literal["cut", "damaged", "chained"] | None:
    """What libsndfile would skip in an ogg file, and with it sound: a last page without its end, a page that does not
    match its checksum, a second recording behind the first. A recorded stream may end with any whole page.
    """
    file.seek(0)
    data = file.read()
    position, begun = 0, False
    while data.startswith(b"OggS", position):
        head = data[position : position + 27]
        segments = data[position + 27 : position + 27 + head[26]] if len(head) == 27 else b""
        if len(head) < 27 or len(segments) < head[26] or position + 27 + len(segments) + sum(segments) > len(data):
            return "cut"
        end = position + 27 + len(segments) + sum(segments)
        if _ogg_crc(head[:22] + bytes(4) + data[position + 26 : end]) != int.from_bytes(head[22:26], "little"):
            return "damaged"
        first = bool(head[5] & 2)
        if first and begun:
            return "chained"
        begun = begun or not first
        position = end
    return "damaged" if data.find(b"OggS", position) >= 0 else None  # behind the last page may lie tags


def _ogg_crc(page: bytes) -> int:
    """CRC-32 with the bits the other way round than zlib's, beginning with 0 (RFC 3533)."""
    mirrored = zlib.crc32(page.translate(_MIRRORED), 0xFFFF_FFFF) ^ 0xFFFF_FFFF
    return int.from_bytes(mirrored.to_bytes(4, "little").translate(_MIRRORED), "big")


def mp3_samples(file: BinaryIO) -> tuple[int, bool]:
    """Samples per channel in the frames of an mp3 (layers I to III), counted one by one; whether it tells its length.

    Some 2,000 to 3,500 more than a decoder gives, which drops the encoder's run-up and padding.
    """
    file.seek(0)
    data = file.read()
    position = _after_id3(data)
    kind, samples, lost, tells = 0, 0, 0, False
    while lost < MP3_LOST and (at := data.find(b"\xff", position)) >= 0 and at + 4 <= len(data):
        lost += at - position
        head = int.from_bytes(data[at : at + 4], "big")
        length, count = _mp3_frame(head)
        if not length or (kind and head & 0xFFFE_0C00 != kind):
            position, lost = at + 1, lost + 1
            continue
        if at + length > len(data):
            break  # the last frame lacks its end
        if not kind:
            tells = any(name in data[at : at + length] for name in (b"Xing", b"Info", b"VBRI"))
        kind, lost = head & 0xFFFE_0C00, 0  # version, layer and rate stay
        samples += count
        position = at + length
    return samples, tells


def _after_id3(data: bytes) -> int:
    position = 0
    while data[position : position + 3] == b"ID3" and len(data) >= position + 10:
        size = 0
        for byte in data[position + 6 : position + 10]:
            size = size << 7 | byte & 0x7F
        position += 10 + size
    return position


@lru_cache(maxsize=4096)  # a file has a handful of heads; without it 10 us a frame
def _mp3_frame(head: int) -> tuple[int, int]:
    """(bytes, samples per channel) of the frame that begins with these four bytes; (0, 0) for none."""
    version, layer, bits, rate = head >> 19 & 3, head >> 17 & 3, head >> 12 & 15, head >> 10 & 3
    if head >> 21 != 0x7FF or version == 1 or layer == 0 or not 1 <= bits <= 14 or rate == 3:
        return 0, 0
    hertz = _MP3_RATES[version][rate]
    bits_per_s = 1000 * _MP3_KBITS[version == 3, layer][bits - 1]
    padding = head >> 9 & 1
    if layer == 3:
        return (12 * bits_per_s // hertz + padding) * 4, 384
    samples = 576 if layer == 1 and version != 3 else 1152
    return samples // 8 * bits_per_s // hertz + padding, samples


def _at(file: BinaryIO, position: int, size: int) -> bytes:
    file.seek(position)
    return file.read(size)
