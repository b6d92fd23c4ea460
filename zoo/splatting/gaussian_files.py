"""Files of Gaussians: the .ply of 3DGS, and the .splat of web viewers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from zoo.data.scene_readers import need_plyfile
from zoo.errors import DataError
from zoo.files import atomic_path, parsing
from zoo.ops.spherical_harmonics import sh0_to_rgb, sh_count
from zoo.splatting.gaussians import Rows


def ply_properties(sh_degree: int) -> list[str]:
    """Names of the numbers of a Gaussian in a .ply file, in their order."""
    rest = 3 * (sh_count(sh_degree) - 1)
    return [
        *("x", "y", "z", "nx", "ny", "nz"),
        *(f"f_dc_{i}" for i in range(3)),
        *(f"f_rest_{i}" for i in range(rest)),
        "opacity",
        *(f"scale_{i}" for i in range(3)),
        *(f"rot_{i}" for i in range(4)),
    ]


def write_ply(path: Path, rows: Rows) -> None:
    """Writes the standard 3DGS layout: float32, little endian, values before activation.

    Args:
        path: ends in .ply.
        rows: the Gaussians, as `GaussianModel.rows` gives them.
    """
    plyfile = need_plyfile()
    count = len(rows["means"])
    degree = round((rows["shN"].shape[1] + 1) ** 0.5) - 1
    columns = [
        rows["means"],
        torch.zeros(count, 3),
        rows["sh0"].flatten(1),
        rows["shN"].transpose(1, 2).flatten(1),  # all of red, then green, then blue
        rows["opacities"].unsqueeze(1),
        rows["scales"],
        rows["quats"],
    ]
    table = torch.cat([c.detach().cpu().float() for c in columns], dim=1).numpy().astype("<f4")
    vertex = np.ascontiguousarray(table).view([(name, "<f4") for name in ply_properties(degree)])[:, 0]
    with atomic_path(path) as target:
        plyfile.PlyData([plyfile.PlyElement.describe(vertex, "vertex")], byte_order="<").write(str(target))


def read_ply(path: Path) -> Rows:
    """Reads what `write_ply`, 3DGS and most others write.

    Raises:
        DataError: the file is absent, damaged or holds no Gaussians.
    """
    plyfile = need_plyfile()
    if not path.is_file():
        raise DataError(f"There is no file {path}.")
    with parsing(path, "Gaussians in the layout of 3DGS"):
        vertex = plyfile.PlyData.read(str(path))["vertex"]
        names = [p.name for p in vertex.properties]
        rest = sum(name.startswith("f_rest_") for name in names)
        degree = next((d for d in range(4) if 3 * (sh_count(d) - 1) == rest), None)
        if degree is None:
            raise DataError(f"{path} has {rest} numbers f_rest_*, which fits no degree of spherical harmonics.")

        def read(*keys: str) -> torch.Tensor:
            columns = [np.asarray(vertex[key], dtype=np.float32) for key in keys]
            return torch.from_numpy(np.stack(columns, axis=1) if columns else np.zeros((len(vertex), 0), np.float32))

        higher = (
            read(*(f"f_rest_{i}" for i in range(rest))).reshape(len(vertex), 3, rest // 3).transpose(1, 2).contiguous()
        )
        return {
            "means": read("x", "y", "z"),
            "scales": read("scale_0", "scale_1", "scale_2"),
            "quats": read("rot_0", "rot_1", "rot_2", "rot_3"),
            "opacities": read("opacity").squeeze(1),
            "sh0": read("f_dc_0", "f_dc_1", "f_dc_2").unsqueeze(1),
            "shN": higher,
        }


def write_splat(path: Path, rows: Rows) -> None:
    """Writes .splat: 32 bytes per Gaussian, the most conspicuous first; colours without dependence on the view."""
    opacity = rows["opacities"].sigmoid()
    order = (opacity * rows["scales"].sum(-1).exp()).argsort(descending=True)
    record = np.zeros(len(order), [("place", "<f4", 3), ("scale", "<f4", 3), ("rgba", "u1", 4), ("rotation", "u1", 4)])
    quats = torch.nn.functional.normalize(rows["quats"], dim=-1)
    rgba = torch.cat([sh0_to_rgb(rows["sh0"][:, 0]), opacity.unsqueeze(1)], dim=1)
    record["place"] = rows["means"][order].numpy()
    record["scale"] = rows["scales"].exp()[order].numpy()
    record["rgba"] = (255 * rgba.clamp(0, 1)).round()[order].numpy()
    record["rotation"] = (128 + 128 * quats).round().clamp(0, 255)[order].numpy()
    with atomic_path(path) as target:
        record.tofile(target)
