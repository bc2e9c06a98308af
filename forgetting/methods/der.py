"""Dark experience replay: what the net once said of old rows, and what was right to say."""

import torch
import torch.nn.functional as F

from forgetting.rehearsal import Rehearsal
from forgetting.settings import Setting, number


class DER(Rehearsal):
    """DER++: alpha * E (h(x') - z')^2 + beta * E loss(h(x''), y''), two draws from a reservoir.

    Buzzega et al. 2020, equation 6: z' is the logit that x' had when it was stored. A row's logit
    is its own task's. Of a discriminator's stream fakes are stored; the loss of old fakes is taken
    beside as many of the present real images, for the objective weighs both alike.
    """

    source = "Buzzega et al. 2020, arXiv 2004.07211"
    settings = {
        "alpha": Setting(0.2, number(at_least=0), "of the squared distance to stored logits"),
        "beta": Setting(0.5, number(at_least=0), "of the loss on old rows"),
        **Rehearsal.settings,
    }
    kept = {**Rehearsal.kept, "logits": torch.float32}

    def takes_part(self, player):
        return super().takes_part(player) and (self.alpha != 0 or self.beta != 0)

    def draw(self, player, n, step):
        again = self.draw_old()
        return {"again": again, **super().draw(player, n, step)}

    def both(self, drawn):
        return torch.cat([drawn["old"], drawn["again"]])

    def extend(self, batch, drawn):
        batch.extra[self.name] = self.recall(batch, self.both(drawn))[0]

    def loss(self, learner, batch, out, drawn):
        images, columns = self.recall(batch, self.both(drawn))
        stored, n = self.logits[drawn["old"]], len(drawn["old"])
        logits = learner.score(out.extra[self.name], columns.get(learner.net.condition))
        self.keep(batch, drawn["place"], logits=out.logits[self.fresh_rows(batch)].detach())
        if not n:  # there is no past yet
            return 1.0, logits.sum()
        again = {name: values[n:] for name, values in columns.items()}
        past = self.batch_of_the_past(batch, images[n:], again)
        seen = torch.cat([out.logits[self.beside(batch, images[n:])], logits[n:]])
        old_loss = sum(learner.objective(past, seen).values())
        return 1.0, self.alpha * F.mse_loss(logits[:n], stored) + self.beta * old_loss
