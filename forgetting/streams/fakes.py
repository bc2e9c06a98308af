"""The moving stream of recorded opponents: real images against the fakes of one GAN's successive
generators, a generator a task.

What a GAN's discriminator lives through (Chen et al., arXiv 1811.11212, Section 3), with the same
opponents for every arm. Real and fake keep their meaning, so with one head what falls is forgotten.
"""

from collections.abc import Callable, Collection, Iterator

import numpy as np
import torch

from forgetting import probes
from forgetting.accuracy import roc_auc
from forgetting.data import Dataset
from forgetting.devices import all_to_device
from forgetting.errors import UserError
from forgetting.learner import Batch
from forgetting.networks import scale_images
from forgetting.streams import Schedule

PROBE_IMAGES = 500  # of a kind, on which a linear probe is fitted
LABELLED = 5000  # test images of a probe for the class


def met(tasks: int, omit: Collection[int]) -> list[int]:
    """The generator (from 0) that is met in the turn of each of `tasks`: for one of `omit` (counted
    from 1) the nearest shown before it, or behind it where there is none.

    Raises UserError for a number out of range, and where none would be left.
    """
    wrong = [number for number in omit if not 1 <= number <= tasks]
    if wrong:
        raise UserError(
            f"stream.omit: generators count from 1 to {tasks} in this recording, not {wrong[0]}"
        )
    left = [task for task in range(tasks) if task + 1 not in omit]
    if not left:
        raise UserError(f"stream.omit: it must leave one of the {tasks} generators, not none")
    return [max((t for t in left if t <= task), default=left[0]) for task in range(tasks)]


def require_one_head(head: str) -> None:
    """Raise UserError where each generator would have a head of its own."""
    if head != "shared":
        raise UserError(
            "head: it must be shared with stream.name=fakes: real and fake mean the same in every "
            "task"
        )


class Fakes:
    """Batches of a discriminator: half are real images, half fakes of the generators whose turn it
    is. Drawn with replacement.

    fakes: (T, P, 3, S, S) uint8, a generator's to train on, on the dataset's device. draws: a CPU
    generator; it and the step are all the state there is.
    """

    player = "discriminator"

    def __init__(
        self,
        dataset: Dataset,
        fakes: torch.Tensor,
        schedule: Schedule,
        batch_size: int,
        draws: torch.Generator,
    ):
        self.dataset, self.fakes, self.schedule, self.draws = dataset, fakes, schedule, draws
        self.rows = n = batch_size // 2  # of a kind
        self.targets = (torch.arange(2 * n, device=fakes.device) < n).float()

    def draw(self, step: int, draws: torch.Generator | None = None) -> dict[str, torch.Tensor]:
        """All that is random in the batch of update number `step`, on the CPU: rows of the training
        images, tasks and their fakes by number, (B/2,) int64. draws: instead of the stream's."""
        draws = draws or self.draws
        return self._draw(self.schedule.tasks(step, self.rows, draws), draws)

    def _draw(self, tasks: torch.Tensor, draws: torch.Generator) -> dict[str, torch.Tensor]:
        rows = torch.randint(len(self.dataset.train_labels), (self.rows,), generator=draws)
        fakes = torch.randint(self.fakes.shape[1], (self.rows,), generator=draws)
        return {**self.dataset.drawn(rows), "tasks": tasks, "fakes": fakes}

    def of_task(self, task: int, draws: torch.Generator) -> Iterator[Batch]:
        """Batches of one generator alone, without end."""
        tasks = torch.full((self.rows,), task)
        while True:
            drawn = all_to_device(self._draw(tasks, draws), self.fakes.device)
            yield self.batch(drawn, 0)

    def batch(self, drawn: dict[str, torch.Tensor], step: int) -> Batch:
        """Real images, and behind them fakes; a target is 1 for real."""
        n, tasks = self.rows, drawn["tasks"]
        real = self.dataset.images_of(drawn)
        fake = self.fakes[tasks, drawn["fakes"]]
        return Batch(
            images=scale_images(torch.cat([real, fake])),
            targets=self.targets.clone(),
            tasks=torch.cat([tasks, tasks]),
            labels=None,
            real=[slice(0, n)],
            fake=[slice(n, 2 * n)],
            player=self.player,
            step=step,
        )


class HeldOut:
    """Held-out real images and every generator's held-out fakes, and what is read off a
    discriminator on them.

    fakes: (T, P, 3, S, S) uint8 to fit a probe on; held_out: (T, H, 3, S, S), others.
    eval_images: of an evaluation within a task, equally many of a kind; else they are all.
    """

    def __init__(
        self, dataset: Dataset, fakes: torch.Tensor, held_out: torch.Tensor, eval_images: int
    ):
        self.dataset, self.tasks = dataset, len(held_out)
        self.real = dataset.test_images[dataset.balanced_test_subset(held_out.shape[1])]
        # No more of a kind than of the other: they would cost time, and tell next to nothing.
        self.held_out, self.shown = held_out[:, : len(self.real)], fakes[:, :PROBE_IMAGES]
        some = max(1, eval_images // (self.tasks + 1))
        self.some = (self.real[:: -(-len(self.real) // some)], held_out[:, :some])
        self.of_methods = self.some[0]
        self.of_classes = dataset.balanced_test_subset(LABELLED).to(fakes.device)

    def __len__(self) -> int:
        real, fakes = self.some
        return len(real) + fakes.shape[0] * fakes.shape[1]

    def images(self, whole: bool) -> torch.Tensor:
        """Those of an evaluation (N, 3, S, S) uint8: real ones, then each generator's. whole: all
        of them."""
        real, fakes = (self.real, self.held_out) if whole else self.some
        return torch.cat([real, *fakes])

    def _sizes(self, whole: bool) -> list[int]:
        real, fakes = (self.real, self.held_out) if whole else self.some
        return [len(real), *map(len, fakes)]

    def score(self, logits: np.ndarray, whole: bool) -> dict[str, float]:
        """From the logits (N, 1) of `images(whole)`: balanced accuracy on real images and each
        generator's fakes, its area under the ROC curve, and the share of real images that are
        called real."""
        of_real, *of_fakes = np.split(logits[:, 0], np.cumsum(self._sizes(whole))[:-1])
        values = {"rate/real": float((of_real > 0).mean())}
        for j, of_fake in enumerate(of_fakes):
            told = float((of_fake <= 0).mean())
            values[f"accuracy/task_{j}"] = (values["rate/real"] + told) / 2
            values[f"auc/task_{j}"] = roc_auc(of_real, of_fake)
        return values

    def auc(self, read: Callable, task: int) -> float:
        """Area under the ROC curve on one generator's fakes, of all held-out images."""
        logits, *_ = read(torch.cat([self.real, self.held_out[task]]))
        return roc_auc(*np.split(logits[:, 0], [len(self.real)]))

    def probe(self, read: Callable, vectors: torch.Tensor) -> dict[str, float]:
        """Is what is lost from the head lost from the vector that it reads, too? Test accuracy of a
        linear probe of it, real images against the fakes of each generator.

        read: images -> logits (N, 1), vectors (N, D), ...; vectors: of `images(whole=True)`.
        """
        n = min(PROBE_IMAGES, len(self.dataset.train_labels))
        rows = self.dataset.training_subset(None)[:n].to(self.real.device)
        _, of_training, *_ = read(torch.cat([self.dataset.train_images[rows], *self.shown]))
        train = of_training.split([n, *map(len, self.shown)])
        test = vectors.split(self._sizes(whole=True))
        values = {}
        for j in range(self.tasks):
            parts = []
            for real, *fakes in (train, test):
                counts = torch.tensor([len(real), len(fakes[j])])
                kind = torch.arange(2).repeat_interleave(counts).to(real.device)
                parts += [torch.cat([real, fakes[j]]), kind]
            values[f"probe/task_{j}"], _ = probes.linear_probe(*parts, probes.FINAL_LAYER_C)
        return values

    def labelled(self, read: Callable, vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What a probe for the class is tested on: vectors (N, D) of real images, and labels."""
        _, of_test, *_ = read(self.dataset.test_images[self.of_classes])
        return of_test, self.dataset.test_labels[self.of_classes]
