"""Where the files lie that travel with the package: configs/, data/ and kernels/.

In a checkout they stand at the top level, beside ``zoo/``; in an installed wheel they are package data
under ``zoo/_assets/`` (see ``[tool.hatch.build.targets.wheel.force-include]`` in pyproject.toml).
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_INSTALLED = _PACKAGE / "_assets"


def path(*parts: str) -> Path:
    """Absolute path of a shipped file or folder.

    Args:
        parts: path below the repository root, for example ``path("configs")`` or
            ``path("data", "digits.yaml")``.

    Returns:
        The path; it need not exist.
    """
    root = _INSTALLED if _INSTALLED.is_dir() else _PACKAGE.parent
    return root.joinpath(*parts)
