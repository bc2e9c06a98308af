"""Another pretext task than rotation, at rotation's cost: is it rotation, or any task like it?"""

import torch
import torch.nn.functional as F

from forgetting.learner import Method
from forgetting.rotation import ROTATIONS, head_logits, rows_to_turn
from forgetting.seeding import generator
from forgetting.settings import Setting, number
from forgetting.tiles import ORDERS, permuted


class Jigsaw(Method):
    """A second loss: tell how the 2 x 2 tiles of real images (a generator: its fakes) are permuted.

    -weight * E log Q(P = p | x^p), p uniform over all 24, with a head of its own; a generator's
    alpha times it. Of three copies of the images that `rotation` turns three times.
    """

    source = "Noroozi & Favaro 2016, arXiv 1603.09246; Carlucci et al. 2019, arXiv 1903.06864"
    settings = {
        "weight": Setting(1.0, number(at_least=0), "of the loss"),
        "alpha": Setting(0.2, number(at_least=0), "times the weight: of a generator's loss"),
    }
    uses = ("rotated_images",)
    players = ("classifier", "discriminator", "generator")
    purpose = "rotation"  # the images that the rotation loss would turn

    def setup(self, learner):
        self.head = learner.head(self, outputs=len(ORDERS))
        self.tiles = generator(self.seed, "tiles")

    def takes_part(self, player):
        return super().takes_part(player) and (player != "generator" or self.alpha != 0)

    def draw(self, player, n, step):
        rows = rows_to_turn(player, n, self.rotated_images, self.draws).repeat(ROTATIONS - 1)
        labels = torch.randint(len(ORDERS), (len(rows),), generator=self.tiles)
        return {"rows": rows, "labels": labels, "orders": ORDERS[labels]}

    def extend(self, batch, drawn):
        batch.extra[self.name] = permuted(batch.images[batch.own][drawn["rows"]], drawn["orders"])

    def loss(self, learner, batch, out, drawn):
        weight = self.weight * (self.alpha if batch.player == "generator" else 1.0)
        return weight, F.cross_entropy(self.head(out.extra[self.name]).float(), drawn["labels"])

    def evaluate(self, learner, images):
        """As many copies as `rotation` looks at, the 24 permutations in turn."""
        shown = images.repeat(ROTATIONS, 1, 1, 1)
        labels = torch.arange(len(shown)) % len(ORDERS)
        shown = permuted(shown, ORDERS[labels].to(shown.device))
        right = head_logits(learner, self.head, shown).argmax(1) == labels
        return {f"accuracy/{self.name}": float(right.numpy().mean())}
