"""The official files of Scaffold-GS and Momentum-GS: anchors as .ply, networks as TorchScript."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from zoo.data.scene_readers import need_plyfile
from zoo.errors import DataError, WeightsError
from zoo.files import atomic_path, parsing
from zoo.splatting.scaffold_gs.decoder import Appearance, GaussianDecoder

PLY = "point_cloud.ply"
NETWORKS = {"opacity_mlp.pt": "mlp_opacity", "cov_mlp.pt": "mlp_cov", "color_mlp.pt": "mlp_color"}
OPTIONAL = {"feature_bank_mlp.pt": "mlp_feature_bank", "embedding_appearance.pt": "embedding_appearance"}


def ply_properties(feat_dim: int, n_offsets: int) -> list[str]:
    """Names of an anchor's numbers, in their order."""
    return [
        *("x", "y", "z", "nx", "ny", "nz"),
        *(f"f_offset_{i}" for i in range(3 * n_offsets)),
        *(f"f_anchor_feat_{i}" for i in range(feat_dim)),
        "opacity",
        *(f"scale_{i}" for i in range(6)),
        *(f"rot_{i}" for i in range(4)),
    ]


def write_anchors(path: Path, rows: Mapping[str, Tensor]) -> None:
    """Writes anchors as the official .ply: float32, little endian; of the offsets all x, then all y, then all z."""
    plyfile = need_plyfile()
    count, n_offsets, feat_dim = len(rows["anchor"]), rows["offset"].shape[1], rows["anchor_feat"].shape[1]
    columns = [
        rows["anchor"],
        torch.zeros(count, 3),
        rows["offset"].transpose(1, 2).flatten(1),
        *(rows[name] for name in ("anchor_feat", "opacity", "scaling", "rotation")),
    ]
    table = torch.cat([c.detach().cpu().float() for c in columns], dim=1).numpy().astype("<f4")
    vertex = np.ascontiguousarray(table).view([(name, "<f4") for name in ply_properties(feat_dim, n_offsets)])[:, 0]
    with atomic_path(path) as target:
        plyfile.PlyData([plyfile.PlyElement.describe(vertex, "vertex")], byte_order="<").write(str(target))


def read_anchors(path: Path) -> dict[str, Tensor]:
    """Reads what `write_anchors` and the official code write.

    Raises:
        DataError: the file is absent, damaged or holds no anchors.
    """
    plyfile = need_plyfile()
    if not path.is_file():
        raise DataError(f"There is no file {path}.")
    with parsing(path, "anchors in the official layout"):
        vertex = plyfile.PlyData.read(str(path))["vertex"]
        names = [p.name for p in vertex.properties]
        slots, feat_dim = (sum(n.startswith(p) for n in names) for p in ("f_offset_", "f_anchor_feat_"))
        if slots == 0 or slots % 3 or feat_dim == 0:
            raise DataError(f"{path} holds no anchors: it has {slots} numbers f_offset_*, {feat_dim} f_anchor_feat_*.")
        table = np.stack([np.asarray(vertex[n], np.float32) for n in ply_properties(feat_dim, slots // 3)], axis=1)
    place, _, offset, feature, opacity, scaling, rotation = torch.from_numpy(table).split(
        [3, 3, slots, feat_dim, 1, 6, 4], dim=1
    )
    return {
        "anchor": place.contiguous(),
        "offset": offset.reshape(-1, 3, slots // 3).transpose(1, 2).contiguous(),
        "anchor_feat": feature.contiguous(),
        "scaling": scaling.contiguous(),
        "rotation": rotation.contiguous(),
        "opacity": opacity.contiguous(),
    }


def read_folder(folder: Path) -> dict[str, Tensor]:
    """Anchors and networks of an official ``iteration_*`` folder, under the names of the official code.

    The result is what `zoo.convert_official` takes.

    Raises:
        DataError: a file is absent or damaged.
    """
    tensors = read_anchors(folder / PLY)
    for file, part in {**NETWORKS, **OPTIONAL}.items():
        path = folder / file
        if not path.is_file():
            if file in OPTIONAL:
                continue
            raise DataError(f"{folder} has no {file}.")
        try:
            state = torch.jit.load(str(path), map_location="cpu").state_dict()
        except (RuntimeError, ValueError, OSError) as error:
            raise DataError(f"{path} can't be read as TorchScript ({error}).") from None
        tensors |= {f"{part}.{key}": value for key, value in state.items()}
    return tensors


def write_folder(folder: Path, rows: Mapping[str, Tensor], decoder: GaussianDecoder) -> list[Path]:
    """Writes anchors and networks as the official code does; returns the files."""
    paths = [folder / PLY]
    write_anchors(paths[0], rows)
    for file, part in {**NETWORKS, **OPTIONAL}.items():
        module = getattr(decoder, part)
        if module is None:
            continue
        with torch.no_grad(), atomic_path(folder / file) as target:
            if isinstance(module, Appearance):
                script = torch.jit.trace(_Table(module.embedding), torch.zeros(1, dtype=torch.int64))
            else:
                script = torch.jit.trace(module, torch.zeros(1, module[0].in_features))
            script.save(str(target))
        paths.append(folder / file)
    return paths


class _Table(nn.Module):
    """The vectors of photographs as the official code looks them up."""

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self.embedding = embedding

    def forward(self, index: Tensor) -> Tensor:
        return self.embedding(index)


def check_complete(tensors: Mapping[str, Tensor]) -> None:
    """Raises `WeightsError` unless anchors and the three networks are there."""
    needed = ["anchor", "offset", "anchor_feat", "scaling", "rotation", "opacity"]
    needed += [f"{m}.{layer}.{kind}" for m in NETWORKS.values() for layer in (0, 2) for kind in ("weight", "bias")]
    missing = [name for name in needed if name not in tensors]
    if missing:
        raise WeightsError(f"This is no checkpoint of Scaffold-GS or Momentum-GS: it lacks {', '.join(missing[:5])}.")
