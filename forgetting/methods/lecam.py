"""The LeCam regularization of Tseng et al., arXiv 2104.03310: logits are held near what they were.

R = E_{x~data} relu(D(x) - a_F)^2 + E_z relu(a_R - D(G(z)))^2, with a_R and a_F moving averages of
the mean logits of real images and of fakes
"""

import torch
import torch.nn.functional as F

from forgetting.learner import Method
from forgetting.settings import Setting, integer, number, share


class LeCam(Method):
    """Logits of real images are drawn to the fakes' moving average, and the other way round."""

    source = "Tseng et al. 2021, arXiv 2104.03310, and biggan_cifar of google/lecam-gan"
    settings = {
        "weight": Setting(0.3, number(at_least=0), "of the regularization"),
        "decay": Setting(0.9, share(), "of the moving averages"),
        "start": Setting(1000, integer(0), "updates before it begins"),
    }
    players = ("discriminator",)

    def setup(self, learner):
        self.register_buffer("real", torch.zeros((), device=learner.device))
        self.register_buffer("fake", torch.zeros((), device=learner.device))

    def draw(self, player, n, step):
        """The authors' ema_losses counts updates from 1: the averages are the last batch's means
        before update `start`, behind which the regularization begins."""
        averaging = step > 0 and step + 1 >= self.start
        return {
            "decay": torch.tensor(self.decay if averaging else 0.0),
            "weight": torch.tensor(self.weight if step >= self.start else 0.0),
        }

    def loss(self, learner, batch, out, drawn):
        real, fake = (torch.cat([out.logits[s] for s in rows]) for rows in (batch.real, batch.fake))
        with torch.no_grad():
            for average, now in ((self.real, real), (self.fake, fake)):
                average.copy_(torch.lerp(now.mean(), average, drawn["decay"]))
        toward_fake = F.relu(real - self.fake).square().mean()
        return drawn["weight"], toward_fake + F.relu(self.real - fake).square().mean()
