"""Damaging files the way transfers, disks and editors do: reproducibly, from a seed."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

Damage = Callable[[bytes, np.random.Generator], bytes]


def cut(content: bytes, random: np.random.Generator) -> bytes:
    """The end is missing."""
    return content[: random.integers(len(content))]


def flip(content: bytes, random: np.random.Generator) -> bytes:
    """Some bits are others."""
    damaged = np.frombuffer(content, np.uint8).copy()
    at = random.integers(len(damaged), size=random.integers(1, 9))
    damaged[at] ^= (1 << random.integers(8, size=len(at))).astype(np.uint8)
    return damaged.tobytes()


def flip_head(content: bytes, random: np.random.Generator) -> bytes:
    """Some bytes among the first 200, where most formats have their header, are others."""
    damaged = np.frombuffer(content, np.uint8).copy()
    at = random.integers(min(200, len(damaged)), size=random.integers(1, 5))
    damaged[at] = random.integers(256, size=len(at))
    return damaged.tobytes()


def blank(content: bytes, random: np.random.Generator) -> bytes:
    """A stretch is zero."""
    start, stop = sorted(random.integers(len(content) + 1, size=2))
    return content[:start] + bytes(stop - start) + content[stop:]


def repeat(content: bytes, random: np.random.Generator) -> bytes:
    """A stretch stands there twice."""
    start, stop = sorted(random.integers(len(content) + 1, size=2))
    return content[:stop] + content[start:]


def leave_out(content: bytes, random: np.random.Generator) -> bytes:
    """A stretch is missing."""
    start, stop = sorted(random.integers(len(content) + 1, size=2))
    return content[:start] + content[stop:]


_WORD = re.compile(rb"[\w.+-]+")
_WORDS = (
    b"nan",
    b"inf",
    b"-1",
    b"0",
    b"99999999999999999999",
    b"1e400",
    b"word",
    b"",
    b"[]",
    b"null",
    b"{",
    b'"',
    b"\xff",
)


def other_word(content: bytes, random: np.random.Generator) -> bytes:
    """One to three words of a text are others."""
    words = list(_WORD.finditer(content))
    chosen = sorted(random.choice(len(words), min(len(words), int(random.integers(1, 4))), replace=False), reverse=True)
    for index in chosen:
        start, stop = words[index].span()
        content = content[:start] + _WORDS[random.integers(len(_WORDS))] + content[stop:]
    return content


def noise(content: bytes, random: np.random.Generator) -> bytes:
    """Nothing of it is left."""
    return random.bytes(int(random.integers(0, 400)))


BINARY: tuple[Damage, ...] = (cut, flip, flip_head, blank, repeat, leave_out, noise)
TEXT: tuple[Damage, ...] = (cut, other_word, leave_out, repeat, flip, noise)
