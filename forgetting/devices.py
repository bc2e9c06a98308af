"""What a GPU wants otherwise than a CPU."""

import torch


def to_device(tensor: torch.Tensor, device: torch.device | str) -> torch.Tensor:
    """A CPU tensor on `device`. A GPU is not waited for: it copies from page-locked memory when it
    comes to it, where an ordinary copy lets it run dry first."""
    if torch.device(device).type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def evaluation_batch(images, device: torch.device | str) -> int:
    """How many of `images` (N, 3, S, S) to evaluate at once: on a CPU so few that their maps stay
    in its cache, on a GPU a million pixels, whose maps take a few GB at most."""
    if torch.device(device).type == "cuda":
        return max(100, 10**6 // images.shape[-1] ** 2)
    return 100
