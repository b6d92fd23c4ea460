"""Errors meant for the person at the keyboard: each names the cause and the remedy.

The command lines print them as one message and leave with exit code 2; everything else that is raised is
a defect of ours and keeps its traceback. `ZOO_DEBUG=1` shows the traceback of these too.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ZooError(Exception):
    """Base of all errors that a user can mend."""


class UnknownNameError(ZooError):
    """A name that is not in the registry, the manifest or the list of configs."""


class ConfigError(ZooError):
    """A config with an unknown key, a wrong type, a missing value or a bad interpolation."""


class DataError(ZooError):
    """Data that is absent, damaged or of the wrong layout."""


class WeightsError(ZooError):
    """Weights or a checkpoint that are absent, damaged, or do not fit the model."""


class Interrupted(ZooError):
    """Work that a signal stopped after its state had been saved.

    Args:
        message: where the state is.
        signum: the signal.
    """

    def __init__(self, message: str, signum: int) -> None:
        super().__init__(message)
        self.signum = signum


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A closing sentence for "unknown name" messages: the near matches, or all that is known.

    Args:
        name: what was asked for.
        known: the valid names.

    Returns:
        ``"Did you mean ...?"``, or ``"Known: ..."`` when nothing is near.
    """
    known = sorted(known)
    # A wrong family or a missing prefix is as common as a typo: compare the last part as well.
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    tail = name.rsplit("/", 1)[-1]
    near += [k for k in known if k.rsplit("/", 1)[-1] == tail and k not in near]
    if near:
        return "Did you mean " + " or ".join(f"'{n}'" for n in near[:4]) + "?"
    return "Known: " + (", ".join(known) if known else "nothing") + "."
