"""Features of any net, read off without changing it."""

import torch
from torch import nn

from forgetting.networks import buffers_kept


@torch.no_grad()
def read_features(
    module: nn.Module, images: torch.Tensor, layer: str | None = None, at_once: int = 256
) -> torch.Tensor:
    """What a net makes of images, (N, D) float32 on the CPU, in evaluation mode.

    module: any torch module, left as it was: modes, batch statistics and power iterations, too.
    images: (N, ...) as the net takes them; `at_once` of them at a time go to its device. layer: the
    name (as in `module.named_modules()`) of the part whose output is meant; unset: the module's. A
    map (N, C, h, w) is averaged over its places, other outputs are made flat.

    Raises ValueError for a layer that is not there, or whose output is no tensor of a row an image.
    """
    parts = dict(module.named_modules())
    if layer is not None and layer not in parts:
        raise ValueError(
            f"read_features: there is no layer {layer!r}; there are {', '.join(parts)}"
        )
    found, seen = [], []
    hook = parts[layer or ""].register_forward_hook(lambda _, __, output: seen.append(output))
    first = next(module.parameters(), None)
    try:
        with buffers_kept(module):
            module.eval()
            for some in images.split(at_once):
                seen.clear()
                module(some if first is None else some.to(first.device))
                found.append(_rows(seen, len(some), layer))
    finally:
        hook.remove()
    return torch.cat(found)


def _rows(outputs: list, n: int, layer: str | None) -> torch.Tensor:
    which = f"layer {layer!r}" if layer else "the module"
    if not outputs:
        raise ValueError(f"read_features: {which} has no part in the forward pass")
    output = outputs[-1]
    if not isinstance(output, torch.Tensor) or output.dim() < 2 or len(output) != n:
        raise ValueError(f"read_features: {which} gives no tensor with a row an image")
    return (output.mean((2, 3)) if output.dim() == 4 else output.flatten(1)).float().cpu()
