"""One seed, several independent streams of random numbers."""

import hashlib
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
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


def shared_draws() -> dict[str, Any]:
    """Where the process's own generators stand, as a checkpoint can hold it. Nothing here draws
    from them, but a user's method may: `torch.rand(3)`."""
    kind, keys, *rest = np.random.get_state()
    state = {"torch": torch.get_rng_state(), "python": random.getstate()}
    state["numpy"] = [kind, torch.from_numpy(keys.copy()), *rest]
    if torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def restore_shared_draws(state: Mapping[str, Any]) -> None:
    """The inverse of `shared_draws`."""
    torch.set_rng_state(state["torch"])
    random.setstate(state["python"])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy(), *rest))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
