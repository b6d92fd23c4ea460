"""What the gallery lets turn about of a scene of Gaussians."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from zoo.viz.space import Space

MAX_POINTS = 20_000


def centres(means: Tensor, opacities: Tensor, colours: Tensor, viewmat: Tensor, least: float) -> Space | None:
    """Centres and colours of Gaussians as a camera is turned, a sample of them if there are many; None without any.

    Args:
        means: (N, 3).
        opacities: (N,) in [0, 1].
        colours: (N, 3).
        viewmat: (4, 4) world to camera.
        least: opacity of what is shown.
    """
    (visible,) = torch.where(opacities >= least)
    if not len(visible):
        return None
    if len(visible) > MAX_POINTS:
        chosen = np.random.default_rng(0).permutation(len(visible))[:MAX_POINTS]
        visible = visible[torch.from_numpy(chosen).to(visible.device)]
    places = means[visible].detach() @ viewmat[:3, :3].to(means).T
    shown = colours[visible].detach().clamp(0, 1)
    return Space(places.cpu().numpy().astype(np.float32), shown.cpu().numpy().astype(np.float32))
