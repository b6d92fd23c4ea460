"""Files such as a user of each model has, made of the examples that its config is tested with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from PIL import Image

from zoo.module import ZooModule


def prediction(module: ZooModule, data: pl.LightningDataModule, folder: Path) -> dict[str, Any]:
    """Writes an input file and names the output: the arguments of ``module.predict_file``.

    Args:
        module: the model.
        data: what it is tested with.
        folder: both files lie there.
    """
    name = module.zoo_name
    family = name.split("/")[0]
    if family == "pinn":
        well = {"V0": 20.0, "L": 1.0} if name == "pinn/conditional-well" else {}
        return {"output": folder / "states.npz", **well}
    if family == "splatting":
        return {"input": Path("turn"), "output": folder / "turn.gif", "frames": 2, "width": 24}
    data.setup("test")
    loader = data.test_dataloader()
    batch = next(iter(loader[0] if isinstance(loader, list) else loader))
    if name == "humans/smplify":
        person = batch["keypoints"][0, :25].numpy().copy()
        person[:, :2] = (person[:, :2] + 1) * 150
        people = {"people": [{"pose_keypoints_2d": person.ravel().tolist()}]}
        (folder / "people.json").write_text(json.dumps(people), encoding="utf-8")
        return {"input": folder / "people.json", "output": folder / "bodies.obj"}
    if name == "humans/spin":
        pixels = (255 * batch["image"][0].movedim(0, -1).clamp(0, 1)).byte().numpy()
        Image.fromarray(pixels).save(folder / "person.png")
        return {"input": folder / "person.png", "output": folder / "body.obj"}
    if name == "humans/learnable-smplify":  # a motion from the start pose to the end pose
        time = torch.linspace(0, 1, 6)[:, None]
        pose = torch.lerp(batch["start_pose"][:1], batch["end_pose"][:1], time)
        joints = module.joints(pose[:, :3], pose[:, 3:], batch["betas"][:1].expand(6, -1))  # type: ignore[operator]
        np.save(folder / "joints.npy", joints.detach().numpy())
        return {"input": folder / "joints.npy", "output": folder / "bodies.npz", "refine": 0}
    if name in ("humans/arteq", "humans/pointnet"):
        np.save(folder / "scan.npy", batch["points"][0].numpy())
        return {"input": folder / "scan.npy", "output": folder / "body.ply", "refine": 1, "views": 1}
    key, output = {
        "kat/gr-kan": ("x", "y.npy"),
        "kat/kat": ("image", "classes.json"),
        "kat/vit": ("image", "classes.csv"),
        "mri": ("masked_kspace", "image.h5"),
        "operators": ("input", "fields.npy"),
    }[name if family == "kat" else family]
    np.save(folder / "input.npy", batch[key][:2].numpy())
    return {"input": folder / "input.npy", "output": folder / output}
