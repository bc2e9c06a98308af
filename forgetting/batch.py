"""What one update is made of, and what the net makes of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from forgetting.errors import UserError

COLUMNS = ("targets", "tasks", "labels")


@dataclass
class Batch:
    """One update of the net under study; methods change it in place.

    images: (N, 3, S, S) float as `scale_images` gives them, a generator's fakes with their graph.
    targets: (N,) float, 1 the task's class or real, 0 others or fake. tasks, labels: (N,) int64,
    the task a row was drawn for and the class it shows; None where there is none.
    real, fake: which rows are real images, which a generator's; the stream's own come first.
    player: classifier, discriminator or generator. step: updates of the run before this one.
    extra: a method's own rows (M, 3, S, S), by its name; no part of the objective.
    """

    images: torch.Tensor
    targets: torch.Tensor
    tasks: torch.Tensor | None
    labels: torch.Tensor | None
    real: list[slice]
    fake: list[slice]
    player: str
    step: int
    extra: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def own(self) -> slice:
        """The rows for a pretext task: the stream's real images, in a generator's update its
        fakes."""
        return (self.real or self.fake)[0]

    def columns(self, rows: slice | torch.Tensor) -> dict[str, torch.Tensor]:
        """What is known of some rows beside their images."""
        return {name: self.column(name)[rows] for name in COLUMNS if self.column(name) is not None}

    def column(self, name: str) -> torch.Tensor | None:
        return getattr(self, name)

    def add(self, images: torch.Tensor, columns: Mapping[str, torch.Tensor], real: bool) -> None:
        """Put rows (M, 3, S, S) into the objective, behind the others. Raises UserError where fakes
        are said to be real, and where a classifier's are said to be fakes."""
        if not real and self.player == "classifier":
            raise UserError(
                'batch.add: all rows of a classifier are real; real=batch.player == "classifier"'
            )
        targets = columns.get("targets")
        # On a GPU it would have to wait for the answer.
        known = real and self.fake and targets is not None and not targets.is_cuda
        if known and bool((targets == 0).any()):
            raise UserError("batch.add: rows whose target is 0 are fakes, and need real=False")
        n = len(self.images)
        self.images = torch.cat([self.images, images])
        for name, values in columns.items():
            setattr(self, name, torch.cat([self.column(name), values]))
        (self.real if real else self.fake).append(slice(n, n + len(images)))


@dataclass(frozen=True)
class Outputs:
    """What the net makes of a batch: features (N, width), logits (N,) float32 (None without an
    objective), and the features of methods' own rows by name."""

    features: torch.Tensor
    logits: torch.Tensor | None
    extra: dict[str, torch.Tensor]
