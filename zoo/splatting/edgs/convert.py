"""EDGS writes the checkpoints of 3DGS."""

from zoo.splatting.gs3d.convert import convert_official

__all__ = ["convert_official"]
