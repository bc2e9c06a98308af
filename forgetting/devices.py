"""What one device wants otherwise than another."""

from pathlib import Path

import torch


def to_device(tensor: torch.Tensor, device: torch.device | str) -> torch.Tensor:
    """A CPU tensor on `device`. A GPU is not waited for: it copies from page-locked memory when it
    comes to it, where an ordinary copy lets it run dry first."""
    if torch.device(device).type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def all_to_device(drawn, device: torch.device | str):
    """The same lists and dictionaries with their CPU tensors on `device`."""
    if isinstance(drawn, torch.Tensor):
        return to_device(drawn, device)
    if isinstance(drawn, dict):
        return {name: all_to_device(value, device) for name, value in drawn.items()}
    if isinstance(drawn, list):
        return [all_to_device(value, device) for value in drawn]
    return drawn


def evaluation_batch(images, device: torch.device | str) -> int:
    """How many of `images` (N, 3, S, S) to evaluate at once: on a CPU so few that their maps stay
    in its cache, on a GPU a million pixels, whose maps take a few GB at most."""
    if torch.device(device).type == "cuda":
        return max(100, 10**6 // images.shape[-1] ** 2)
    return 100


def bf16_is_native(device: torch.device | str) -> bool:
    """Whether bf16 convolutions are faster than fp32's here, told by the kind of processor and not
    by the clock: one machine always answers the same.

    Among CPUs those with matrix units (AMX), and AMD's with AVX-512's bf16 dot product: a Zen 4
    does it at twice the rate of fp32, which `make bench` measures. On others with that instruction
    bf16 convolutions of these nets measured 0.5 to 0.7 times the speed of fp32.
    """
    if torch.device(device).type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)

    def has(what: str) -> bool:
        asked = getattr(torch.cpu, what, None)  # private to PyTorch: it may go
        return bool(asked and asked())

    return has("_is_amx_tile_supported") or (has("_is_avx512_bf16_supported") and _is_amds())


def _is_amds() -> bool:
    """Whether Linux says so of the processor; False elsewhere."""
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
