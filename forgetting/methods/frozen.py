"""The control that a cure has to beat: features that cannot be forgotten, nor learnt."""

from forgetting.learner import Method


class Frozen(Method):
    """Only the heads learn: the backbone stays as the stream found it, random or planted.

    With spectral norm the power iteration goes on, so that the weights as they act settle for some
    updates at first; there are no batch statistics.
    """

    source = "a control"

    def setup(self, learner):
        learner.net.backbone.requires_grad_(False)
