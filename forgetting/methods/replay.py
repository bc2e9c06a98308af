"""Rows of the past, kept in a reservoir and learnt from again."""

import torch

from forgetting.errors import UserError
from forgetting.learner import Method
from forgetting.networks import scale_images, to_bytes
from forgetting.settings import Setting, integer, optional


class Replay(Method):
    """Old rows are learnt again: beside a classifier's batch, in place of some of a GAN's fakes."""

    source = "Vitter 1985, algorithm R; for GANs Shrivastava et al. 2017, arXiv 1612.07828"
    settings = {
        "size": Setting(1000, integer(0), "rows that the reservoir holds; 0: all of the run's"),
        "rows": Setting(None, optional(integer(1), "as many; half in a GAN"), "old rows with new"),
    }

    def check(self, player, batch_size):
        if player == "discriminator" and (self.rows or 0) > batch_size:
            raise UserError(f"replay.rows: at most the batch's {batch_size} fakes, not {self.rows}")

    def setup(self, learner):
        n, images = learner.batch_size, (3, learner.image_size, learner.image_size)
        self.rows = self.rows or (n if learner.player == "classifier" else max(1, n // 2))
        if learner.one_for_all:
            print("warning: replay with head=shared: old targets contradict new ones")
        self.room = self.size or learner.updates * n
        shapes = {"images": (images, torch.uint8), "targets": ((), torch.float32)}
        for name in ("images", "targets", "tasks", "labels"):  # and behind them a place for others
            shape, kind = shapes.get(name, ((), torch.int64))
            empty = torch.zeros(self.room + 1, *shape, dtype=kind, device=learner.device)
            self.register_buffer(name, empty)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))  # on the CPU, for draws

    def draw(self, player, n, step):
        seen = int(self.seen)
        old = torch.randint(min(seen, self.room) or 1, (self.rows,), generator=self.draws)
        # Row t (from 0) takes place t, and later one of 0..t; it is not kept if there is none.
        t = seen + torch.arange(n)
        place = (torch.rand(n, dtype=torch.float64, generator=self.draws) * (t + 1)).long()
        place = torch.where(t < self.room, t, place).clamp(max=self.room)
        place[(place[:, None] == place).triu(1).any(1)] = self.room  # taken again by a later row
        self.seen += n
        return {"old": old if seen else old[:0], "place": place}

    def extend(self, batch, drawn):
        own = (batch.fake or batch.real)[0]
        fresh = {"images": to_bytes(batch.images[own]), **batch.columns(own)}
        old = {name: getattr(self, name)[drawn["old"]] for name in fresh}
        for name, values in fresh.items():
            getattr(self, name).index_copy_(0, drawn["place"], values)
        images = scale_images(old.pop("images"))
        if batch.player == "classifier":
            batch.add(images, old, real=True)
        else:  # so that real and fake stay balanced
            for name, values in {"images": images, **old}.items():
                batch.column(name)[own][: len(values)] = values
