"""Averaged gradient episodic memory: no step that would raise the loss on old rows."""

import torch

from forgetting.rehearsal import Rehearsal


class AGEM(Rehearsal):
    """g~ = g - min(0, g.r / r.r) r, where r is the gradient of the objective on old rows.

    Chaudhry et al. 2019, equation 11. g is the gradient of all losses. r takes a second forward and
    backward pass. Of a discriminator's stream fakes are stored; r is of old fakes beside as many of
    the present real images, for the objective weighs both alike.
    """

    source = "Chaudhry et al. 2019, arXiv 1812.00420"

    def extend(self, batch, drawn):
        self.past = self.batch_of_the_past(batch, *self.recall(batch, drawn["old"]))
        self.keep(batch, drawn["place"])

    def after_backward(self, learner, batch):
        if not len(self.past.images):
            return
        net = learner.net
        moved = [p for p in net.parameters() if p.grad is not None]
        net.eval()  # the net that g is of: no other power iteration
        with learner.autocast():
            images = self.past.images.contiguous(memory_format=torch.channels_last)
            logits = learner.logits(net(images), self.past)
            loss = sum(learner.objective(self.past, logits).values())
        net.train()
        old = torch.autograd.grad(loss, moved, materialize_grads=True)
        both = sum((p.grad * r).sum() for p, r in zip(moved, old, strict=True))
        of_old = sum(r.square().sum() for r in old).clamp(min=torch.finfo(torch.float32).tiny)
        share = (both / of_old).clamp(max=0)  # no branch, which would wait for the device
        for p, r in zip(moved, old, strict=True):
            p.grad.sub_(share * r)
