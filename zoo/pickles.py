"""What a pickle from elsewhere may name: arrays and numbers of NumPy, whichever version of it wrote them."""

from __future__ import annotations

import codecs
from typing import Any

import numpy as np

_NUMPY: dict[str, Any] = {
    "ndarray": np.ndarray,
    "dtype": np.dtype,
    "_reconstruct": np.zeros(1).__reduce__()[0],
    "scalar": np.float64(0).__reduce__()[0],
    "_frombuffer": np.zeros(1).__reduce_ex__(5)[0],
}


def array_class(module: str, name: str) -> Any:
    """For an unpickler's ``find_class``: what builds arrays, numbers and byte strings; None if it is anything else.

    The modules of NumPy in which these lie have had several names.
    """
    if (module, name) == ("_codecs", "encode"):
        return codecs.encode
    return _NUMPY.get(name) if module.split(".")[0] == "numpy" else None


def safe_globals() -> list[Any]:
    """The same for `torch.serialization.safe_globals`, which goes by full names: those of NumPy 1 and of NumPy 2."""
    named = [(np.ndarray, "numpy.ndarray"), (np.dtype, "numpy.dtype")]
    for core in ("numpy.core", "numpy._core"):
        named += [(_NUMPY[name], f"{core}.multiarray.{name}") for name in ("_reconstruct", "scalar")]
    return [*named, *(type(np.dtype(kind)) for kind in ("?", "i1", "i2", "i4", "i8", "u1", "f2", "f4", "f8"))]
