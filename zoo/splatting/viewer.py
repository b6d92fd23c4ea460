"""Looking at Gaussians in the browser, through viser."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from zoo.data.scene_views import camera_centres
from zoo.errors import DataError
from zoo.ops.rasterize_reference import covariances
from zoo.ops.spherical_harmonics import sh0_to_rgb
from zoo.splatting.gaussians import GaussianModel


def start(network: GaussianModel, port: int = 8080) -> Any:
    """Starts a server that shows the Gaussians, without dependence of colours on the view, and the cameras' places.

    Args:
        network: the Gaussians.
        port: of the server; the next free one is taken if it is in use.

    Returns:
        viser's server, which runs in threads of its own until ``stop()``.

    Raises:
        DataError: viser is not installed, or there are no Gaussians.
    """
    if len(network) == 0:
        raise DataError("These weights hold no Gaussians: train first.")
    try:
        import viser
    except ImportError as error:
        raise DataError(
            f"The viewer is the package viser, which can't be imported ({error}): pip install viser"
        ) from None
    server = viser.ViserServer(port=port, verbose=False)
    with torch.no_grad():
        scales = network.scales.exp()
        server.scene.add_gaussian_splats(
            "/gaussians",
            centers=network.means.cpu().numpy(),
            covariances=covariances(network.quats, scales).cpu().numpy(),
            rgbs=sh0_to_rgb(network.sh0[:, 0]).clamp(0, 1).cpu().numpy(),
            opacities=network.opacities.sigmoid().unsqueeze(1).cpu().numpy(),
        )
    viewmats = network.key_viewmats.double().cpu().numpy()
    server.scene.set_up_direction(tuple(-viewmats[:, 1, :3].mean(0)))
    server.scene.add_point_cloud(
        "/cameras",
        camera_centres(viewmats).astype(np.float32),
        np.full((len(viewmats), 3), (214, 39, 40), np.uint8),
        point_size=0.03,
    )
    return server
