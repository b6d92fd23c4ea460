"""GR-KAN as a drop-in for the MLPs of a model that is already there."""

from __future__ import annotations

from torch import nn

from zoo.kat.layers import GRKAN

# Activation -> the rational that stands for it.
_MODES: dict[type[nn.Module], str] = {
    nn.GELU: "gelu",
    nn.SiLU: "swish",
    nn.Mish: "mish",
    nn.ReLU: "relu",
    nn.Tanh: "tanh",
    nn.Sigmoid: "sigmoid",
}


def replace_mlp(model: nn.Module, num_groups: int = 8) -> nn.Module:
    """Puts a `GRKAN` in the place of every MLP of `model`, leaving its function as it was.

    The linear layers keep their weights; the first rational starts as the identity and the second as the fit
    of the activation it replaces (GELU: largest error 1.4e-3 on [-3, 3]), as the KAT paper starts from
    pretrained ViTs (section 4.4). An MLP is a module with linear layers ``fc1`` and ``fc2`` and an activation
    ``act`` (timm's and ours), or an ``nn.Sequential`` of linear, activation and linear layers with dropouts
    between (torchvision's).

    Args:
        model: changed in place.
        num_groups: channel groups of the rationals.

    Returns:
        `model`.

    Raises:
        ValueError: there is no such MLP, or the groups do not divide its channels.
    """
    found = [(parent, name, parts) for parent in model.modules() for name, parts in _mlps_of(parent)]
    if not found:
        raise ValueError(f"{type(model).__name__} has no MLP that is known how to replace: see replace_mlp's docstring")
    for parent, name, (fc1, act, fc2, drop) in found:
        if fc1.in_features % num_groups or fc1.out_features % num_groups:
            raise ValueError(
                f"{num_groups} groups do not divide the {fc1.in_features} and {fc1.out_features} channels of {name}"
            )
        mlp = GRKAN(fc1.in_features, fc1.out_features, fc2.out_features, _MODES[type(act)], num_groups, drop)
        mlp.to(fc1.weight.device, fc1.weight.dtype)
        mlp.fc1, mlp.fc2 = fc1, fc2
        mlp.train(parent.training)
        setattr(parent, name, mlp)
    return model


Parts = tuple[nn.Linear, nn.Module, nn.Linear, float]


def _mlps_of(parent: nn.Module) -> list[tuple[str, Parts]]:
    named = [(name, _parts(child)) for name, child in parent.named_children()]
    return [(name, parts) for name, parts in named if parts is not None]


def _parts(module: nn.Module) -> Parts | None:
    """(fc1, activation, fc2, dropout rate) if the module is an MLP."""
    if isinstance(module, GRKAN):
        return None
    if isinstance(module, nn.Sequential):
        layers: list[object] = [child for child in module if not isinstance(child, nn.Dropout | nn.Identity)]
        if len(layers) != 3:
            return None
    else:
        layers = [getattr(module, name, None) for name in ("fc1", "act", "fc2")]
    fc1, act, fc2 = layers
    if not (isinstance(fc1, nn.Linear) and isinstance(act, nn.Module) and isinstance(fc2, nn.Linear)):
        return None
    if type(act) not in _MODES or fc2.in_features != fc1.out_features or fc1.bias is None or fc2.bias is None:
        return None
    drops = [child.p for child in module.children() if isinstance(child, nn.Dropout)]
    return fc1, act, fc2, drops[0] if drops else 0.0
