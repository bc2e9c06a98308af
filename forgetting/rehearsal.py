"""Rows of the past for the methods that go back to them: a reservoir, and batches made of it.

Vitter, "Random sampling with a reservoir", 1985, algorithm R: after t rows each of them is kept
with the same probability, whatever t is.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch

from forgetting.batch import COLUMNS, Batch
from forgetting.errors import UserError
from forgetting.learner import Method
from forgetting.networks import scale_images, to_bytes
from forgetting.settings import Setting, integer, optional


class Rehearsal(Method):
    """A method with a reservoir: of a classifier's rows, of a discriminator's fakes.

    Real images are not kept: they do not change, and every batch brings others.
    """

    settings: ClassVar = {
        "size": Setting(1000, integer(0), "rows that the reservoir holds; 0: all of the run's"),
        "rows": Setting(None, optional(integer(1), "as many; half in a GAN"), "old rows with new"),
    }
    kept: ClassVar = {  # what is kept of a row
        "images": torch.uint8,
        "targets": torch.float32,
        "tasks": torch.int64,
        "labels": torch.int64,
    }

    def check(self, player, batch_size):
        if player == "discriminator" and (self.rows or 0) > batch_size:
            key = f"{self.name}.rows"
            raise UserError(f"{key}: at most the batch's {batch_size} fakes, not {self.rows}")

    def setup(self, learner):
        lacking = [name for name in Rehearsal.settings if name not in self.settings]
        if lacking:
            raise UserError(
                f"{self.name}.py: settings lack {' and '.join(lacking)}, which a reservoir needs; "
                f"begin them with **Rehearsal.settings"
            )
        n, images = learner.batch_size, (3, learner.image_size, learner.image_size)
        self.rows = self.rows or (n if learner.player == "classifier" else max(1, n // 2))
        if learner.one_for_all:
            print(f"warning: {self.name} with head=shared: old targets contradict new ones")
        self.room = self.size or learner.updates * n
        for name, kind in self.kept.items():  # and behind them a place for others
            shape = images if name == "images" else ()
            empty = torch.zeros(self.room + 1, *shape, dtype=kind, device=learner.device)
            self.register_buffer(name, empty)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))  # on the CPU, for draws

    def draw_old(self) -> torch.Tensor:
        """Places (rows,) int64 of the reservoir, with replacement; (0,) where it is empty."""
        seen = int(self.seen)
        old = torch.randint(min(seen, self.room) or 1, (self.rows,), generator=self.draws)
        return old if seen else old[:0]

    def draw(self, player, n, step):
        old, seen = self.draw_old(), int(self.seen)
        # Row t (from 0) takes place t, and later one of 0..t; it is not kept if there is none.
        t = seen + torch.arange(n)
        place = (torch.rand(n, dtype=torch.float64, generator=self.draws) * (t + 1)).long()
        place = torch.where(t < self.room, t, place).clamp(max=self.room)
        place[(place[:, None] == place).triu(1).any(1)] = self.room  # taken again by a later row
        self.seen += n
        return {"old": old, "place": place}

    @staticmethod
    def fresh_rows(batch: Batch) -> slice:
        """The stream's rows that are kept."""
        return (batch.fake or batch.real)[0]

    def keep(self, batch: Batch, place: torch.Tensor, **others: torch.Tensor) -> None:
        """Put the stream's fresh rows in their places. others: more of them than a batch has."""
        rows = self.fresh_rows(batch)
        fresh = {"images": to_bytes(batch.images[rows]), **batch.columns(rows), **others}
        for name, values in fresh.items():
            getattr(self, name).index_copy_(0, place, values)

    def recall(self, batch: Batch, old: torch.Tensor) -> tuple[torch.Tensor, dict]:
        """Rows from their places: images (M, 3, S, S) scaled, and the columns the batch has."""
        columns = [name for name in COLUMNS if batch.column(name) is not None]
        return scale_images(self.images[old]), {name: getattr(self, name)[old] for name in columns}

    @staticmethod
    def beside(batch: Batch, images: torch.Tensor) -> slice:
        """The rows of the batch that the objective is to see beside these old ones: as many real
        images as there are old fakes, for it weighs both alike; a classifier's stand alone."""
        start = batch.own.start
        return slice(start, start + (0 if batch.player == "classifier" else len(images)))

    def batch_of_the_past(
        self, batch: Batch, images: torch.Tensor, columns: Mapping[str, torch.Tensor]
    ) -> Batch:
        """A batch for the objective of old rows (M, 3, S, S), behind those `beside` them."""
        real, n = self.beside(batch, images), len(images)
        ours = batch.columns(real)
        joined = {name: torch.cat([ours[name], old]) for name, old in columns.items()}
        fakes = batch.player != "classifier"
        return Batch(
            images=torch.cat([batch.images[real], images]),
            **{name: joined.get(name) for name in COLUMNS},
            real=[slice(0, n)],
            fake=[slice(n, 2 * n)] if fakes else [],
            player=batch.player,
            step=batch.step,
        )
