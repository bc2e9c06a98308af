"""The moving stream: "class c against all others", for c = 0, 1, ... in turn.

Chen et al., arXiv 1811.11212, Section 3 and Figure 3.
"""

import torch


class OneVsAllStream:
    """Batches of one binary task after another, round and round.

    A balanced batch is half images of the task's class and half others (an odd batch has one
    more of the others); an unbalanced one is drawn from all images alike, as a plain 1-vs-all
    problem would be. Images are drawn with replacement.

    labels: (N,) int64 class of every training image, each class present.
    generator: a CPU generator; it and the step number are all the state there is.
    """

    def __init__(
        self,
        labels: torch.Tensor,
        classes: int,
        batch_size: int,
        iterations_per_task: int,
        balanced: bool,
        generator: torch.Generator,
    ):
        labels = labels.cpu()
        self.classes = classes
        self.batch_size = batch_size
        self.iterations_per_task = iterations_per_task
        self.balanced = balanced
        self.generator = generator
        self.labels = labels
        self.of_class = [(labels == c).nonzero()[:, 0] for c in range(classes)]
        self.of_others = [(labels != c).nonzero()[:, 0] for c in range(classes)]

    def task(self, step: int) -> int:
        """The class that update number `step` (from 0) asks for."""
        return step // self.iterations_per_task % self.classes

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Indices (B,) int64 into the training images and targets (B,) float, 1 for the class."""
        task = self.task(step)
        if self.balanced:
            positives = self._draw(self.of_class[task], self.batch_size // 2)
            negatives = self._draw(self.of_others[task], self.batch_size - len(positives))
            indices = torch.cat([positives, negatives])
        else:
            indices = torch.randint(len(self.labels), (self.batch_size,), generator=self.generator)
        return indices, (self.labels[indices] == task).float()

    def _draw(self, pool: torch.Tensor, n: int) -> torch.Tensor:
        return pool[torch.randint(len(pool), (n,), generator=self.generator)]
