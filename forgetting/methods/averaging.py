"""Historical averaging: weights are drawn to the mean of what they have been."""

import torch

from forgetting.learner import Method
from forgetting.networks import acting_weights, flattened
from forgetting.settings import Setting, number


class Averaging(Method):
    """weight * ||theta - (1/t) sum_{i=1..t} theta[i]||^2, the mean over all updates so far.

    Salimans et al. 2016, Section 3.3, there for both players; here for the net under study alone.
    The mean is a constant to the gradient. Weights are as they act: divided by their spectral norm
    where they have one.
    """

    source = "Salimans et al. 2016, arXiv 1606.03498"
    settings = {"weight": Setting(1.0, number(at_least=0), "of the penalty")}

    def setup(self, learner):
        weights = flattened(acting_weights(learner.net).values())
        self.register_buffer("mean", weights.detach().clone())
        self.register_buffer("count", torch.ones((), device=learner.device))

    def loss(self, learner, batch, out, drawn):
        apart = flattened(acting_weights(learner.net).values()) - self.mean
        return self.weight, apart.square().sum()

    @torch.no_grad()
    def after_step(self, learner, batch):
        self.count += 1
        self.mean += (flattened(acting_weights(learner.net).values()) - self.mean) / self.count
