"""Learning without forgetting: the net still says of present rows what it said a task ago."""

import copy

import torch
import torch.nn.functional as F

from forgetting.learner import Method
from forgetting.settings import Setting, number


class LwF(Method):
    """weight * E BCE(h(x) / T, sigmoid(h*(x) / T)), h* the net of the last boundary.

    Li & Hoiem 2016, Section 3: the distillation loss, for binary labels. Where tasks have outputs
    of their own, its sum over those of tasks met before, other than x's. Of a discriminator's rows
    real images alone, for the old net calls the present fakes real.
    """

    source = "Li & Hoiem 2016, arXiv 1606.09282"
    settings = {
        "weight": Setting(1.0, number(at_least=0), "of the distillation: the paper's lambda_o"),
        "temperature": Setting(2.0, number(above=0), "T, by which logits are divided"),
    }

    def setup(self, learner):
        if learner.one_for_all:
            print(f"warning: {self.name} with head=shared: old answers contradict new targets")
        self.old = copy.deepcopy(learner.net).requires_grad_(False)
        n = learner.net.binary_head.out_features if learner.net.condition == "tasks" else 1
        self.register_buffer("met", torch.full((n,), float(n == 1), device=learner.device))
        self.register_buffer("known", torch.zeros(n, device=learner.device))  # of the old net

    def train(self, mode=True):
        return super().train(False)  # no power iteration of the old net's

    def loss(self, learner, batch, out, drawn):
        own, t = batch.own, self.temperature
        new = _outputs(learner.net, out.features[own], batch)
        with torch.no_grad():
            old = _outputs(self.old, self.old(batch.images[own]), batch)
        held = self.known.expand_as(new)
        if len(self.known) > 1:
            tasks = batch.tasks[own]
            held = held.scatter(1, tasks[:, None], 0.0)
            self.met.index_fill_(0, tasks, 1)
        apart = F.binary_cross_entropy_with_logits(new / t, (old / t).sigmoid(), reduction="none")
        return self.weight, (held * apart).sum(1).mean()

    def boundary(self, learner, batches):
        self.old.load_state_dict(learner.net.state_dict())
        self.known.copy_(self.met)


def _outputs(net, features, batch):
    """Logits (N, outputs) of the stream's own rows."""
    if net.condition == "tasks":
        return net.binary_head(features).float()
    return net.logits(features, batch.columns(batch.own).get(net.condition))[:, None]
