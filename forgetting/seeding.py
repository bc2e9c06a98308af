"""One seed, several independent streams of random numbers."""

import hashlib

import torch


def derived_seed(seed: int, purpose: str) -> int:
    """A seed in [0, 2**63) for one purpose ("weights", "stream", ...), unrelated to the others."""
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, purpose: str) -> torch.Generator:
    """A CPU generator for one purpose.

    On the CPU whatever the training device, so that a seed draws the same images everywhere.
    """
    return torch.Generator().manual_seed(derived_seed(seed, purpose))
