"""zoo: published systems of scientific machine learning and 3-D vision behind one interface.

    import zoo
    zoo.list_models("kat/*")
    module = zoo.create_model("kat/kat", size="tiny")
    module = zoo.load_pretrained("kat/digits")

The command lines are ``python -m zoo.train``, ``zoo.evaluate``, ``zoo.predict`` and ``zoo.models``;
``python -m zoo`` prints what there is. Importing this package does not import torch.
"""

import os
from importlib import metadata

# Read once, when torch loads its OpenMP library: threads that wait for work then sleep instead of spinning, without
# which a small operation takes up to a hundred times longer on a machine whose cores are shared.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from zoo.pretrained import list_weights, load_pretrained
from zoo.registry import (
    convert_official,
    create_data,
    create_model,
    list_data,
    list_models,
    register_data,
    register_model,
)

try:
    __version__ = metadata.version("zoo")
except metadata.PackageNotFoundError:  # a checkout that is not installed
    __version__ = "0+unknown"

__all__ = [
    "convert_official",
    "create_data",
    "create_model",
    "list_data",
    "list_models",
    "list_weights",
    "load_pretrained",
    "register_data",
    "register_model",
]
