"""Looks through a MATLAB 5 file before scipy reads it: tags that are garbage make scipy crash the interpreter."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

_HEADER = 128
# Bytes per number of the types of data, and the classes of arrays of numbers (double to uint64).
_ITEM_SIZE = {1: 1, 2: 1, 3: 2, 4: 2, 5: 4, 6: 4, 7: 4, 9: 8, 12: 8, 13: 8}
_MATRIX, _COMPRESSED = 14, 15
_CELL, _NUMERIC = 1, range(6, 16)
_COMPLEX = 0x08


def numeric_variables(path: Path) -> list[str]:
    """Names of the arrays of numbers in a MATLAB file of version 5 to 7, each checked to be whole.

    Raises:
        ValueError: the file is of another version, an element is longer than what is left of the file, or an array
            does not have as much data as its size says.
    """
    return [name for name, is_cell in _variables(path) if not is_cell]


def cell_variables(path: Path) -> list[str]:
    """Names of the cell arrays in which every cell is an array of numbers, each checked to be whole.

    Raises:
        ValueError: as of `numeric_variables`.
    """
    return [name for name, is_cell in _variables(path) if is_cell]


def _variables(path: Path) -> Iterator[tuple[str, bool]]:
    """Name of each array of numbers, or of cells of them, and whether it is of cells."""
    content = memoryview(path.read_bytes())
    orders = {b"IM": "<", b"MI": ">"}
    if len(content) < _HEADER or bytes(content[126:128]) not in orders:
        raise ValueError("it has no header of MATLAB 5")
    order = orders[bytes(content[126:128])]
    for kind, element in _elements(content[_HEADER:], order, padded=False):
        if kind == _COMPRESSED:
            [(kind, element)] = _elements(memoryview(zlib.decompress(element)), order)
        if kind != _MATRIX:
            raise ValueError(f"an element of the type {kind} where an array should be")
        found = _check(list(_elements(element, order)), order)
        if found is not None:
            yield found


def _elements(content: memoryview, order: str, padded: bool = True) -> Iterator[tuple[int, memoryview]]:
    """Type and data of each element; within an array every one fills up to 8 bytes."""
    at = 0
    while at < len(content):
        kind, size = struct.unpack_from(f"{order}II", content, at)
        if kind >> 16:  # a short one: its size is the upper half, its data the tag's second word
            kind, size, start, end = kind & 0xFFFF, kind >> 16, at + 4, at + 8
        else:
            start = at + 8
            end = start + (-(-size // 8) * 8 if padded or kind != _COMPRESSED else size)
        if size > len(content) - start or start + size > end:
            raise ValueError(f"an element of {size} bytes where {len(content) - start} are left")
        yield kind, content[start : start + size]
        at = end


def _check(parts: list[tuple[int, memoryview]], order: str) -> tuple[str, bool] | None:
    """Name of an array of numbers and False, of an array of cells of them and True; None for text and the like."""
    if len(parts) < 3 or (parts[0][0], len(parts[0][1])) != (6, 8) or parts[1][0] != 5 or parts[2][0] != 1:
        raise ValueError("an array without flags, size or name")
    flags = struct.unpack_from(f"{order}I", parts[0][1])[0]
    shape = struct.unpack(f"{order}{len(parts[1][1]) // 4}i", parts[1][1])
    name, data = bytes(parts[2][1]).decode("latin1"), parts[3:]
    if flags & 0xFF == _CELL:
        if len(data) != math.prod(shape) or any(kind != _MATRIX for kind, _ in data):
            raise ValueError(f"{len(data)} cells where the size is {shape}")
        cells = [_check(list(_elements(cell, order)), order) for _, cell in data]
        return (name, True) if all(cell is not None and not cell[1] for cell in cells) else None
    if flags & 0xFF not in _NUMERIC:
        return None
    if len(data) != (2 if flags >> 8 & _COMPLEX else 1) or len(shape) < 2 or min(shape) < 0:
        raise ValueError(f"an array of size {shape} with {len(data)} parts")
    for kind, numbers in data:
        if kind not in _ITEM_SIZE or len(numbers) != math.prod(shape) * _ITEM_SIZE[kind]:
            raise ValueError(f"an array of size {shape} with {len(numbers)} bytes of type {kind}")
    return name, False
