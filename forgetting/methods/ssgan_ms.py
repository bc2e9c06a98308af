"""The multi-class minimax game of Tran et al., arXiv 1911.06997, equations 12 and 13: the rotation
head has a fifth class, and what is in it are fakes.

L_D = -V(G, D) + lambda_d * CE of real images by their rotation, and of upright fakes as the fifth
L_G = +V(G, D) + lambda_g * |CE of turned fakes - CE of turned real images|, both by their rotation

As the authors' tntrung/msgan has it (msdistgan.py, modules/imutils.py; the weights are those of
msdistgan_cifar.py for ResNets).
"""

import torch

from forgetting.methods.rotation import Rotation
from forgetting.rotation import ROTATIONS, rotation_loss, turned_copies
from forgetting.settings import Setting, number


class SSGANMS(Rotation):
    """A rotation loss whose head also tells fakes, and a generator that is to be told as real."""

    source = "Tran et al. 2019, arXiv 1911.06997"
    words = "with rotation loss and a class for fakes"
    uses = ("rotated_images",)
    settings = {
        "weight": Setting(0.5, number(at_least=0), "lambda_d, of the discriminator's loss"),
        "weight_g": Setting(0.1, number(at_least=0), "lambda_g, of the generator's"),
    }
    players = ("discriminator", "generator")

    def setup(self, learner):
        super().setup(learner)
        self.head = learner.head(self, ROTATIONS + 1)
        shape = (ROTATIONS * self.rotated_images, 3, learner.image_size, learner.image_size)
        self.register_buffer("real", torch.zeros(shape, device=learner.device))

    def weight_at(self, player, step):
        return self.weight and (self.weight_g if player == "generator" else self.weight)

    def head_of(self, learner):
        return self.head

    def extend(self, batch, drawn):
        """The generator's update has no real images: it takes those that were turned last."""
        upright = batch.images[batch.own][drawn["rows"]]
        turned = turned_copies(upright)
        if batch.player == "generator":
            turned = torch.cat([turned, self.real])
        else:
            self.real.copy_(torch.cat([upright, turned]))
        batch.extra[self.name] = turned

    def loss(self, learner, batch, out, drawn):
        upright, labels = out.features[batch.own][drawn["rows"]], drawn["labels"]
        parts = [upright, out.extra[self.name]]
        if batch.player == "generator":
            fake, real = self.head(torch.cat(parts)).chunk(2)
            return drawn["weight"], (
                rotation_loss(fake, labels) - rotation_loss(real, labels)
            ).abs()
        parts.append(out.features[batch.fake[0]][drawn["rows"]])
        labels = torch.cat([labels, torch.full_like(drawn["rows"], ROTATIONS)])
        return drawn["weight"], rotation_loss(self.head(torch.cat(parts)), labels)
