"""The multi-class minimax game of Tran et al., arXiv 1911.06997: a fifth class, of fakes, for the
rotation head.

L_D = -V(G, D) + lambda_d * CE of real images by their rotation, and of upright fakes as the fifth
L_G = +V(G, D) + lambda_g * |CE of turned fakes - CE of turned real images|, both by their rotation

As in the authors' tntrung/msgan: msdistgan.py, and msdistgan_cifar.py for the weights (ResNet).
"""

import torch

from forgetting.methods.rotation import Rotation
from forgetting.rotation import ROTATIONS, rotation_loss, turned_copies
from forgetting.settings import Setting, number


class SSGANMS(Rotation):
    """A rotation loss whose head also tells fakes, and a generator that is to be told as real."""

    source = "Tran et al. 2019, arXiv 1911.06997"
    words = ""  # its name, and not rotation's words
    uses = ("rotated_images",)
    settings = {
        "weight": Setting(0.5, number(at_least=0), "lambda_d, of the discriminator's loss"),
        "weight_g": Setting(0.1, number(at_least=0), "lambda_g, of the generator's"),
    }
    players = ("discriminator", "generator")

    def setup(self, learner):
        super().setup(learner)
        self.head = learner.head(self, ROTATIONS + 1)
        n, size = ROTATIONS * self.rotated_images, learner.image_size
        self.register_buffer("real", torch.zeros(n, 3, size, size, device=learner.device))

    def weight_at(self, player, step):
        return self.weight and (self.weight_g if player == "generator" else self.weight)

    def head_of(self, learner):
        return self.head

    def extend(self, batch, drawn):
        """The generator's update has no real images: it takes those that were turned last."""
        upright = batch.images[batch.own][drawn["rows"]]
        batch.extra[self.name] = turned = turned_copies(upright)
        if batch.player == "generator":
            batch.extra[self.name] = torch.cat([turned, self.real])
        else:
            self.real.copy_(torch.cat([upright, turned]))

    def loss(self, learner, batch, out, drawn):
        labels = drawn["labels"]
        parts = [out.features[batch.own][drawn["rows"]], out.extra[self.name]]
        if batch.player == "generator":
            fake, real = self.head(torch.cat(parts)).chunk(2)
            apart = rotation_loss(fake, labels) - rotation_loss(real, labels)
            return drawn["weight"], apart.abs()
        parts.append(out.features[batch.fake[0]][drawn["rows"]])
        labels = torch.cat([labels, torch.full_like(drawn["rows"], ROTATIONS)])
        return drawn["weight"], rotation_loss(self.head(torch.cat(parts)), labels)
