"""Synaptic intelligence: what a weight did for the task is what holds it."""

import torch

from forgetting.learner import Method
from forgetting.networks import flattened
from forgetting.settings import Setting, number


class SI(Method):
    """weight * sum Omega (theta - theta*)^2; a task adds w / (Delta^2 + xi) to Omega where it ends.

    Zenke et al. 2017, equations 3 to 5: w = -sum over the task's updates of the gradient, of the
    objective alone, times the step, as the optimiser took it; Delta how far the task moved a
    weight, theta* where the last one left it. Of the parameters as they are trained: with spectral
    norm the weights before it, for gradient and step are known of those. As in the authors' code
    Omega is at least 0: below it, the penalty would reward every step away.
    """

    source = "Zenke et al. 2017, arXiv 1703.04200"
    settings = {
        "weight": Setting(0.1, number(at_least=0), "of the penalty: the paper's c"),
        "xi": Setting(1e-3, number(above=0), "added to the squared distance of a task"),
    }

    def setup(self, learner):
        start = flattened(learner.net.parameters()).detach()
        self.register_buffer("anchor", start.clone())
        for name in ("importance", "path"):
            self.register_buffer(name, torch.zeros_like(start))
        for name in ("gradient", "before"):  # of one update
            self.register_buffer(name, torch.zeros_like(start), persistent=False)

    def loss(self, learner, batch, out, drawn):
        moved = flattened(learner.net.parameters()) - self.anchor
        return self.weight, (self.importance * moved.square()).sum()

    @torch.no_grad()
    def after_objective(self, learner, batch):
        of_all = list(learner.net.parameters())
        self.gradient.copy_(
            flattened(torch.zeros_like(p) if p.grad is None else p.grad for p in of_all)
        )
        self.before.copy_(flattened(of_all))

    @torch.no_grad()
    def after_step(self, learner, batch):
        self.path -= self.gradient * (flattened(learner.net.parameters()) - self.before)

    @torch.no_grad()
    def boundary(self, learner, batches):
        weights = flattened(learner.net.parameters())
        self.importance += self.path / ((weights - self.anchor).square() + self.xi)
        self.importance.clamp_(min=0)
        self.anchor.copy_(weights)
        self.path.zero_()
