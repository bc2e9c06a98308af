"""The label augmentation of Hou et al., arXiv 2106.08601 (SSGAN-LA): one head, of rotation times
real or fake, in place of the adversarial loss.

L_D = E CE(T_k x, 2k) + E CE(T_k G(z), 2k + 1); L_G = E CE(T_k G(z), 2k) - E CE(T_k G(z), 2k + 1)
"""

import torch

from forgetting.learner import Method
from forgetting.rotation import ROTATIONS, turned_copies

REAL, FAKE = 0, 1


class SSGANLA(Method):
    """Tell rotation and real from fake at once, in place of the adversarial loss."""

    source = "Hou et al. 2021, arXiv 2106.08601"
    uses = ("rotated_images",)
    players = ("discriminator", "generator")
    replaces = True

    def setup(self, learner):
        self.head = learner.head(self, 2 * ROTATIONS)

    def extend(self, batch, drawn):
        """Turned copies of the last rows of a kind, those that the rotation loss has."""
        turned = [turned_copies(batch.images[s][-self.rotated_images :]) for s, _ in _kinds(batch)]
        batch.extra[self.name] = torch.cat(turned)

    def loss(self, learner, batch, out, drawn):
        kinds, terms = _kinds(batch), []
        for (own, kind), turned in zip(kinds, out.extra[self.name].chunk(len(kinds)), strict=True):
            by_turn = (out.features[own], *turned.chunk(ROTATIONS - 1))
            logits = [self.head(features) for features in by_turn]
            if batch.player == "generator":
                terms.append(_cross_entropy(logits, REAL) - _cross_entropy(logits, FAKE))
            else:
                terms.append(_cross_entropy(logits, kind))
        return 1.0, sum(terms)

    def score(self, net, features):
        """Logit 0 minus logit 1 of an upright image: its log odds of real against fake."""
        logits = self.head(features)
        return logits[:, REAL] - logits[:, FAKE]


def _kinds(batch) -> list[tuple[slice, int]]:
    """The stream's own rows of each kind that there is."""
    kinds = ((batch.real, REAL), (batch.fake, FAKE))
    return [(rows[0], kind) for rows, kind in kinds if rows]


def _cross_entropy(logits: list[torch.Tensor], kind: int) -> torch.Tensor:
    """The mean over rotations k of the cross-entropy of logits[k] (N, 8) and class 2k + kind."""
    surprises = [-turned.float().log_softmax(1)[:, kind::2] for turned in logits]
    return sum(some[:, k].mean() for k, some in enumerate(surprises)) / ROTATIONS
