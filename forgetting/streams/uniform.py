"""No task that moves: training images of all classes alike, for what is learnt from them alone."""

import torch

from forgetting.data import Dataset
from forgetting.learner import Batch
from forgetting.networks import scale_images


class Uniform:
    """Batches of labelled training images, drawn with replacement.

    draws: a CPU generator; it is all the state there is.
    """

    player = "classifier"

    def __init__(self, dataset: Dataset, batch_size: int, draws: torch.Generator):
        self.dataset, self.rows, self.draws = dataset, batch_size, draws

    def draw(self, step: int, draws: torch.Generator | None = None) -> dict[str, torch.Tensor]:
        """Rows of the training images (B,) int64, on the CPU. draws: instead of the stream's."""
        n = len(self.dataset.train_labels)
        return self.dataset.drawn(torch.randint(n, (self.rows,), generator=draws or self.draws))

    def batch(self, drawn: dict[str, torch.Tensor], step: int) -> Batch:
        """The images of what was drawn; no task, and no target."""
        rows = drawn["rows"]
        images = scale_images(self.dataset.images_of(drawn))
        return Batch(
            images=images,
            targets=images.new_ones(len(rows)),
            tasks=None,
            labels=self.dataset.train_labels[rows],
            real=[slice(0, len(rows))],
            fake=[],
            player=self.player,
            step=step,
        )
