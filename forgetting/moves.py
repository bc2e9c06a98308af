"""Images moved by a few pixels, one by one; with a gradient for what made them."""

import torch


def shifts(n: int, size: int, draws: torch.Generator) -> torch.Tensor:
    """How far each of n images of `size` pixels moves down and to the right, (n, 2) int64: up to an
    eighth of its side, all distances alike."""
    furthest = size // 8
    return torch.randint(-furthest, furthest + 1, (n, 2), generator=draws)


def sources(shift: torch.Tensor, size: int) -> torch.Tensor:
    """From which row (or column) each one of a moved image comes, (N, size) int64, from below 0 to
    beyond the last. shift: (N,) int64."""
    return torch.arange(size, device=shift.device) - shift[:, None]


def taken(images: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Images (N, C, S, S) of these rows and columns of theirs, (N, S) int64 each."""
    n, c, size, _ = images.shape
    down = rows[:, None, :, None].expand(n, c, size, size)
    return images.gather(2, down).gather(3, columns[:, None, None, :].expand(n, c, size, size))
