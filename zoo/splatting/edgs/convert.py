"""EDGS writes the checkpoints of 3DGS."""

from zoo.splatting.gs3d.convert import CHECKPOINT_TYPES, convert_official

__all__ = ["CHECKPOINT_TYPES", "convert_official"]
