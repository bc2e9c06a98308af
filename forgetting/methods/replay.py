"""Rows of the past, kept in a reservoir and learnt from again."""

from forgetting.rehearsal import Rehearsal


class Replay(Rehearsal):
    """Old rows are learnt again: beside a classifier's batch, in place of some of a GAN's fakes."""

    source = "Vitter 1985, algorithm R; for GANs Shrivastava et al. 2017, arXiv 1612.07828"

    def extend(self, batch, drawn):
        images, old = self.recall(batch, drawn["old"])
        self.keep(batch, drawn["place"])
        if batch.player == "classifier":
            batch.add(images, old, real=True)
        else:  # so that real and fake stay balanced
            fakes = self.fresh_rows(batch)
            for name, values in {"images": images, **old}.items():
                batch.column(name)[fakes][: len(values)] = values
