"""The self-supervised loss of Chen et al., arXiv 1811.11212, Section 4: predict the rotation.

L_D = -V(G, D) - beta  * E_{x~data} E_{r~R} [log Q_D(R = r | x^r)]
L_G = +V(G, D) - alpha * E_{x~G}    E_{r~R} [log Q_D(R = r | x^r)]
"""

import torch

from forgetting import rotation as turning
from forgetting.learner import Method


class Rotation(Method):
    """A second loss: tell by how much real images (a generator: its fakes) were rotated."""

    source = "Chen et al. 2019, arXiv 1811.11212"
    words = "with rotation loss"
    uses = ("rotation_weight", "rotated_images", "alpha", "alpha_end", "beta")
    players = ("classifier", "discriminator", "generator")
    purpose = "rotation"

    def setup(self, learner):
        self.steps = learner.steps

    def weight_at(self, player: str, step: int) -> float:
        if player == "generator":
            return turning.annealed(self.alpha, self.alpha_end, step, self.steps)
        return self.rotation_weight if player == "classifier" else self.beta

    def head_of(self, learner):
        return learner.net.rotation_head

    def takes_part(self, player):
        return any(self.weight_at(player, step) for step in (0, self.steps - 1))

    def draw(self, player, n, step):
        rows = turning.rows_to_turn(player, n, self.rotated_images, self.draws)
        labels = turning.rotation_labels(len(rows))
        return {
            "rows": rows,
            "labels": labels,
            "weight": torch.tensor(self.weight_at(player, step)),
        }

    def extend(self, batch, drawn):
        batch.extra[self.name] = turning.turned_copies(batch.images[batch.own][drawn["rows"]])

    def loss(self, learner, batch, out, drawn):
        upright = out.features[batch.own][drawn["rows"]]
        logits = self.head_of(learner)(torch.cat([upright, out.extra[self.name]]))
        return drawn["weight"], turning.rotation_loss(logits, drawn["labels"])

    def evaluate(self, learner, images):
        turned = torch.cat([images, turning.turned_copies(images)])
        logits = turning.head_logits(learner, self.head_of(learner), turned)
        right = logits.argmax(1) == turning.rotation_labels(len(images))
        return {f"accuracy/{self.name}": float(right.numpy().mean())}
