"""The reference of what a net can learn from these images: their labels, and no moving task."""

import torch.nn.functional as F
from torch import nn

from forgetting.learner import Method
from forgetting.networks import build, initialised
from forgetting.seeding import derived_seed


class Supervised(Method):
    """Cross-entropy on the classes, in uniform batches, in place of the task: a reference."""

    source = "a reference"
    words = "supervised on the labels"
    replaces = True
    uniform = True

    def setup(self, learner):
        def head():  # free of spectral norm, which would bound its logits
            return initialised(nn.Linear(learner.net.width, learner.classes), 1.0)

        self.head = build(derived_seed(self.seed, "head supervised"), head).to(learner.device)

    def loss(self, learner, batch, out, drawn):
        return 1.0, F.cross_entropy(self.head(out.features).float(), batch.labels)
