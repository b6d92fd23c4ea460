"""Checks COLMAP's binary files before pycolmap reads them.

pycolmap believes the counts in these files: those of a damaged one make it allocate without limit or read for
minutes. Here every count is followed through the file and must end where the file does.
"""

from __future__ import annotations

import struct
from pathlib import Path

# COLMAP's camera models by their number -> count of parameters.
_PARAMETERS = {0: 3, 1: 4, 2: 4, 3: 5, 4: 8, 5: 8, 6: 12, 7: 5, 8: 4, 9: 5, 10: 12, 11: 16, 12: 12, 13: 6, 14: 3, 15: 3}


def check_sizes(model: Path) -> None:
    """Walks through cameras.bin, images.bin and points3D.bin of a folder, those of them that there are.

    Raises:
        ValueError: one of them ends too early or too late.
    """
    for name, walk in (("cameras.bin", _cameras), ("images.bin", _images), ("points3D.bin", _points)):
        file = model / name
        if not file.is_file():
            continue
        content = file.read_bytes()
        try:
            end = walk(content)
        except (struct.error, ValueError, KeyError) as error:
            raise ValueError(f"{name} is damaged or truncated ({error})") from None
        if end != len(content):
            raise ValueError(f"{name} has {len(content)} bytes where its counts say {end}")


def _count(content: bytes, at: int, size: int) -> int:
    """A 64-bit count of entries of at least `size` bytes that have to follow it."""
    count: int = struct.unpack_from("<Q", content, at)[0]
    if count * size > len(content) - at - 8:
        raise ValueError(f"{count} entries can't fit")
    return count


def _cameras(content: bytes) -> int:
    at = 8
    for _ in range(_count(content, 0, 24)):
        model, width, height = struct.unpack_from("<4xiQQ", content, at)
        if not 0 < width * height < 1 << 34:
            raise ValueError(f"a camera of {width} x {height} pixels")
        at += 24 + 8 * _PARAMETERS[model]
    return at


def _images(content: bytes) -> int:
    at = 8
    for _ in range(_count(content, 0, 73)):
        at = content.index(b"\0", at + 64) + 1  # id, quaternion, translation, camera id; then the name
        at += 8 + 24 * _count(content, at, 24)
    return at


def _points(content: bytes) -> int:
    at = 8
    for _ in range(_count(content, 0, 51)):
        at += 43  # id, position, colour, error; then the track
        at += 8 + 8 * _count(content, at, 8)
    return at
