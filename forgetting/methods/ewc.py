"""Elastic weight consolidation: weights that mattered are held where they were."""

from itertools import islice

import torch
import torch.nn.functional as F
from torch.func import grad, vmap

from forgetting.learner import Method
from forgetting.networks import acting_weights, flattened, logits_with
from forgetting.settings import Setting, integer, number, share


class EWC(Method):
    """Online EWC: 0.5 * weight * sum F (theta - theta*)^2, F and theta* of the last boundary."""

    source = "Kirkpatrick et al. 2017, Schwarz et al. 2018 (arXiv 1805.06370)"
    settings = {
        "weight": Setting(100.0, number(at_least=0), "of the penalty"),
        "gamma": Setting(0.9, share(), "what is left of the Fisher information at a boundary"),
        "batches": Setting(10, integer(1), "of which the Fisher information is taken"),
    }

    def setup(self, learner):
        weights = flattened(acting_weights(learner.net).values()).detach()
        self.register_buffer("fisher", torch.zeros_like(weights))
        self.register_buffer("anchor", weights.clone())

    def loss(self, learner, batch, out, drawn):
        moved = flattened(acting_weights(learner.net).values()) - self.anchor
        return self.weight, 0.5 * (self.fisher * moved.square()).sum()

    def boundary(self, learner, batches):
        """F: the empirical diagonal Fisher information, the mean over images of the squared
        gradient of the logit's log-loss; also where training uses another loss."""
        weights = {name: w.detach() for name, w in acting_weights(learner.net).items()}
        total, n = torch.zeros_like(self.fisher), 0
        for batch in islice(batches, self.batches):
            condition = batch.column(learner.net.condition)

            def log_loss(weights, image, target, condition):
                of_one = None if condition is None else condition[None]
                logit = logits_with(learner.net, weights, image[None], of_one)
                return F.binary_cross_entropy_with_logits(logit, target[None])

            by_image = vmap(
                grad(log_loss), (None, 0, 0, None if condition is None else 0), chunk_size=16
            )
            gradients = by_image(weights, batch.images, batch.targets, condition)
            total += flattened(g.square().sum(0) for g in gradients.values())
            n += len(batch.images)
        self.fisher.mul_(self.gamma).add_(total / n)
        self.anchor.copy_(flattened(weights.values()))
