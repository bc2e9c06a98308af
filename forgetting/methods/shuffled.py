"""The control of the rotation loss that has all of it but something to learn."""

import torch

from forgetting.methods.rotation import Rotation
from forgetting.seeding import generator


class Shuffled(Rotation):
    """The rotation loss with its labels shuffled: same images, rows and cost, nothing to learn."""

    source = "a control"
    words = "control: rotation labels shuffled"

    def setup(self, learner):
        super().setup(learner)
        self.shuffles = generator(self.seed, "shuffled labels")

    def draw(self, player, n, step):
        drawn = super().draw(player, n, step)
        order = torch.randperm(len(drawn["labels"]), generator=self.shuffles)
        return {**drawn, "labels": drawn["labels"][order]}
