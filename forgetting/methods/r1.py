"""The gradient penalty R1 of Mescheder et al., arXiv 1801.04406, instead of spectral norm:
gamma / 2 * E_{x~data} ||grad_x D(x)||^2."""

from forgetting.gradients import of_images
from forgetting.learner import Method
from forgetting.settings import Setting, number


class R1(Method):
    """The logit may not change fast around real images; without spectral norm."""

    source = "Mescheder et al. 2018, arXiv 1801.04406"
    settings = {"weight": Setting(10.0, number(at_least=0), "gamma, of half the squared gradient")}
    overrides = {"spectral_norm": False, "regularizer": "none"}

    def loss(self, learner, batch, out, drawn):
        condition = batch.column(learner.net.condition)
        condition = None if condition is None else condition[batch.own]
        gradient = of_images(learner, batch.images[batch.own], condition)
        return self.weight, gradient.square().sum(1).mean() / 2
