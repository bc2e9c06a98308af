"""The differentiable augmentation of Zhao et al., arXiv 2006.10738: all that the discriminator sees
is augmented, a generator's fakes with their gradient."""

import torch

from forgetting.learner import Method
from forgetting.moves import shifts, sources, taken


class DiffAugment(Method):
    """Every image that the net trains on is shifted and has a square of it cut out."""

    source = "Zhao et al. 2020, arXiv 2006.10738: translation and cutout"
    players = ("classifier", "discriminator", "generator")
    sees_all = True

    def setup(self, learner):
        self.size = learner.image_size

    def draw(self, player, n, step):
        """As the authors' DiffAugment_pytorch.py: shifts of up to an eighth of the side, and the
        middle of a square of half of it, anywhere in the image."""
        high = self.size + 1 - self.size // 2 % 2
        middle = torch.randint(high, (2 * n, 2), generator=self.draws)
        return {"shift": shifts(2 * n, self.size, self.draws), "middle": middle}

    def extend(self, batch, drawn):
        """More rows than were drawn for, which are other methods' own, take the draws again."""
        names, done = list(batch.extra), 0
        parts = [batch.images, *batch.extra.values()]
        for i, images in enumerate(parts):
            again = torch.arange(done, done + len(images), device=images.device)
            again, done = again % len(drawn["shift"]), done + len(images)
            parts[i] = augmented(images, drawn["shift"][again], drawn["middle"][again])
        batch.images, *others = parts
        batch.extra.update(zip(names, others, strict=True))


def augmented(images: torch.Tensor, shift: torch.Tensor, middle: torch.Tensor) -> torch.Tensor:
    """Images (N, C, S, S) moved by `shift` (N, 2) int64 pixels, 0 where nothing of them is, with a
    square of S / 2 around `middle` (N, 2) int64 set to 0."""
    size = images.shape[-1]
    rows, columns = (sources(by, size) for by in shift.unbind(1))
    moved = taken(images, *(index.clamp(0, size - 1) for index in (rows, columns)))
    inside = [(index >= 0) & (index < size) for index in (rows, columns)]
    start = middle - size // 2 // 2
    at = torch.arange(size, device=images.device) - start[:, :, None]
    cut = (at >= 0) & (at < size // 2)
    kept = inside[0][:, :, None] & inside[1][:, None] & ~(cut[:, 0, :, None] & cut[:, 1, None])
    return moved * kept[:, None]
