"""The moving stream: "class c against all others", for c = 0, 1, ... in turn.

Chen et al., arXiv 1811.11212, Section 3 and Figure 3.
"""

from collections.abc import Callable

import numpy as np
import torch

from forgetting.accuracy import one_vs_all_accuracy
from forgetting.data import Dataset
from forgetting.errors import UserError
from forgetting.learner import Batch
from forgetting.networks import scale_images
from forgetting.streams import Schedule


def require_heads(switch: str, head: str) -> None:
    """Raise UserError where one output would be asked for answers that contradict each other."""
    if switch == "none" and head == "shared":
        raise UserError(
            "stream.switch: none needs head=per_task: with one output an image of a batch would be "
            "the class for one task and of the others for the rest"
        )


class OneVsAll:
    """Batches of binary tasks, a task a class; when it is whose turn, the schedule says.

    A balanced batch is half images of the rows' classes and half others (an odd batch has one more
    of the others); an unbalanced one is drawn from all images alike, as a plain 1-vs-all problem
    would be. Images are drawn with replacement.

    dataset: each class present. draws: a CPU generator; it and the step are all the state there is.
    """

    player = "classifier"

    def __init__(
        self,
        dataset: Dataset,
        schedule: Schedule,
        batch_size: int,
        balanced: bool,
        draws: torch.Generator,
    ):
        self.dataset, self.schedule, self.draws = dataset, schedule, draws
        self.batch_size, self.balanced = batch_size, balanced
        self.rows = batch_size  # of a kind
        labels = dataset.train_labels.cpu()
        self.images = len(labels)
        self.tasks = len(dataset.classes)
        self.of_class = [(labels == c).nonzero()[:, 0] for c in range(self.tasks)]
        self.of_others = [(labels != c).nonzero()[:, 0] for c in range(self.tasks)]

    def draw(self, step: int, draws: torch.Generator | None = None) -> dict[str, torch.Tensor]:
        """All that is random in the batch of update number `step`, on the CPU: rows of the training
        images and their tasks, (B,) int64. draws: instead of the stream's own."""
        draws, n = draws or self.draws, self.batch_size
        if not self.balanced:
            rows = torch.randint(self.images, (n,), generator=draws)
            return {**self.dataset.drawn(rows), "tasks": self.schedule.tasks(step, n, draws)}
        rows, tasks = [], []
        for pools, some in ((self.of_class, n // 2), (self.of_others, n - n // 2)):
            tasks.append(self.schedule.tasks(step, some, draws))
            rows.append(_draw(pools, tasks[-1], draws))
        return {**self.dataset.drawn(torch.cat(rows)), "tasks": torch.cat(tasks)}

    def batch(self, drawn: dict[str, torch.Tensor], step: int) -> Batch:
        """The images of what was drawn, on the dataset's device; a target is 1 for the class."""
        rows, tasks = drawn["rows"], drawn["tasks"]
        labels = self.dataset.train_labels[rows]
        return Batch(
            images=scale_images(self.dataset.images_of(drawn)),
            targets=(labels == tasks).float(),
            tasks=tasks,
            labels=labels,
            real=[slice(0, len(rows))],
            fake=[],
            player=self.player,
            step=step,
        )


class HeldOut:
    """The test images of every task, and what is read off a net on them.

    eval_images: of an evaluation within a task; at a task's end they are all the test images.
    """

    def __init__(self, dataset: Dataset, eval_images: int, device: torch.device):
        self.dataset, self.tasks = dataset, len(dataset.classes)
        self.indices = dataset.balanced_test_subset(eval_images).to(device)
        self.of_classes = torch.arange(len(dataset.test_labels), device=device)
        # A quarter, for a method may look at each in four rotations.
        self.of_methods = dataset.test_images[self.indices[::4]]

    def __len__(self) -> int:
        return len(self.indices)

    def images(self, whole: bool) -> torch.Tensor:
        """Those of an evaluation (N, 3, S, S) uint8. whole: all test images."""
        return self.dataset.test_images if whole else self.dataset.test_images[self.indices]

    def score(self, logits: np.ndarray, whole: bool) -> dict[str, float]:
        """Balanced accuracy of every task, from the logits (N, outputs) of `images(whole)`."""
        labels = self.dataset.test_labels if whole else self.dataset.test_labels[self.indices]
        accuracy = one_vs_all_accuracy(logits, labels.cpu().numpy(), self.tasks)
        return {f"accuracy/task_{c}": float(a) for c, a in enumerate(accuracy)}

    def labelled(self, read: Callable, vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What a probe for the class is tested on: vectors (N, D) of all test images, and labels.

        vectors: of `images(whole=True)`.
        """
        return vectors, self.dataset.test_labels


def _draw(pools: list, tasks: torch.Tensor, draws: torch.Generator) -> torch.Tensor:
    """A row of the pool of each task."""
    rows = torch.empty_like(tasks)
    for task in tasks.unique().tolist():
        of_it = tasks == task
        n = int(of_it.sum())
        rows[of_it] = pools[task][torch.randint(len(pools[task]), (n,), generator=draws)]
    return rows
