"""The pretext task: tell how an image's four tiles were permuted.

Noroozi & Favaro, arXiv 1603.09246, see each tile by itself; here, as in Carlucci et al.,
arXiv 1903.06864, the net sees the image put together again.
"""

from itertools import permutations

import torch

ORDERS = torch.tensor(list(permutations(range(4))))  # (24, 4): which tile comes to each place


def permuted(images: torch.Tensor, orders: torch.Tensor) -> torch.Tensor:
    """Images (M, C, S, S), S even, with their tile orders[:, k] at place k; same dtype.

    orders: (M, 4) int64 on the images' device, rows of ORDERS. Tiles and places count by rows: 0
    and 1 above, 2 and 3 below.
    """
    m, channels, size, _ = images.shape
    half = size // 2
    tiles = images.reshape(m, channels, 2, half, 2, half).permute(0, 2, 4, 1, 3, 5)
    tiles = tiles.reshape(m, 4, channels, half, half)
    tiles = tiles[torch.arange(m, device=images.device)[:, None], orders]
    tiles = tiles.reshape(m, 2, 2, channels, half, half).permute(0, 3, 1, 4, 2, 5)
    return tiles.reshape(m, channels, size, size)
