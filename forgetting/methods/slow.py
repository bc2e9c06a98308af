"""The control that a cure has to beat: a net that forgets less because it learns less."""

from forgetting.learner import Method
from forgetting.settings import Setting, share


class Slow(Method):
    """The baseline at a lower learning rate, of the net under study alone.

    A generator keeps its own, and knowledge is planted at the whole one.
    """

    source = "a control"
    settings = {"factor": Setting(0.1, share(above=0), "of the learning rate")}

    @property
    def lr_factor(self):
        return self.factor
