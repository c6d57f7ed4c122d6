"""Short clips as data URIs, so that the page plays them without asking for anything."""

from __future__ import annotations

import base64
import stat
from pathlib import Path

MAX_CLIP = 200_000  # bytes of one clip
MAX_ALL = 5_000_000  # bytes of all clips of a page
# what browsers play: suffix -> (media type, what such a file begins with, from which byte)
FORMATS: dict[str, tuple[str, bytes, int]] = {
    ".wav": ("audio/wav", b"RIFF", 0),
    ".flac": ("audio/flac", b"fLaC", 0),
    ".ogg": ("audio/ogg", b"OggS", 0),
    ".oga": ("audio/ogg", b"OggS", 0),
    ".opus": ("audio/ogg", b"OggS", 0),
    ".mp3": ("audio/mpeg", b"", 0),
    ".m4a": ("audio/mp4", b"ftyp", 4),
    ".webm": ("audio/webm", b"\x1aE\xdf\xa3", 0),
}


class Clips:
    """Hands out data URIs while there is room; ``played`` and ``left_out`` count what became of the paths asked for."""

    def __init__(self, root: Path | None) -> None:
        self.root = root
        self.room = MAX_ALL
        self.played = 0
        self.left_out = 0

    def uri(self, path: str | None) -> str | None:
        """A data URI for the clip at ``path`` (relative to the root), or None: too large, no audio, or not there."""
        if self.root is None or not path:
            return None
        media_type, content = self._read(self.root / str(path))
        if not content:
            self.left_out += 1
            return None
        self.room -= len(content)
        self.played += 1
        return f"data:{media_type};base64,{base64.b64encode(content).decode()}"

    def _read(self, path: Path) -> tuple[str, bytes]:
        media_type, magic, at = FORMATS.get(path.suffix.lower(), ("", b"", 0))
        limit = min(MAX_CLIP, self.room)
        try:
            info = path.stat()
            if not media_type or not stat.S_ISREG(info.st_mode) or not 0 < info.st_size <= limit:
                return media_type, b""
            content = path.read_bytes()
        except (OSError, ValueError):  # gone since the job read it, or a path that no file can have
            return media_type, b""
        # a file of another kind under an audio name must not be copied into a page that people pass on
        is_audio = (
            content[at:].startswith(magic)
            if magic
            else content[:3] == b"ID3" or (content[0] == 0xFF and content[1:2] >= b"\xe0")
        )
        return media_type, content if is_audio and len(content) <= limit else b""
