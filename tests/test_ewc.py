"""Elastic weight consolidation against its definition, by plain autograd and by hand."""

import pytest
import torch
import torch.nn.functional as F
from test_gan import study as gan
from test_methods import STUDIES, make, steps
from test_sequential import study as sequential

from forgetting.networks import acting_weights


@STUDIES
@pytest.mark.parametrize("spectral_norm", [False, True])
def test_fisher_is_the_mean_of_squared_gradients_image_by_image(digits, study, spectral_norm):
    own = {"ewc.batches": 2, "ewc.gamma": 0.5}
    changes = {"spectral_norm": spectral_norm, "method_settings": own}
    if study is sequential:
        changes["head"] = "per_task"
    of_study = make(study, digits, "ewc", **changes)
    steps(of_study, 1)
    ewc, net = of_study.learner.methods["ewc"], of_study.learner.net
    kept = []

    def batches():
        of_gan = study is gan and of_study.gan._boundary_batches
        for batch in (of_gan or of_study._batches_of_the_task)():
            kept.append(batch)
            yield batch

    of_study.learner.boundary(batches)
    assert len(kept) == 2
    # By plain autograd, of a net without any norm whose weights are those that act.
    plain = make(study, digits, "ewc", **{**changes, "spectral_norm": False}).learner.net
    acting = {
        name.replace("parametrizations.weight.original", "weight"): (name, weight)
        for name, weight in acting_weights(net).items()
    }
    plain.load_state_dict({name: weight for name, (_, weight) in acting.items()})
    squares = {name: 0 for name in acting}
    for batch in kept:
        for i in range(len(batch.images)):
            condition = batch.column(net.condition)
            condition = None if condition is None else condition[i : i + 1]
            logit = plain.logits(plain(batch.images[i : i + 1]), condition)
            plain.zero_grad()
            F.binary_cross_entropy_with_logits(logit, batch.targets[i : i + 1]).backward()
            for name, parameter in plain.named_parameters():
                if parameter.grad is not None:
                    squares[name] = squares[name] + parameter.grad.square()
    n = sum(len(batch.images) for batch in kept)
    expected = torch.cat(
        [(squares[name] / n + torch.zeros_like(w)).flatten() for name, (_, w) in acting.items()]
    )
    torch.testing.assert_close(ewc.fisher, expected, rtol=1e-3, atol=1e-8)
    assert ewc.fisher.sum() > 0
    first = ewc.fisher.clone()
    of_study.learner.boundary(lambda: iter(kept))
    torch.testing.assert_close(ewc.fisher, 1.5 * first)  # decayed by a half, and added anew


def test_the_anchor_is_where_the_task_left_the_weights(digits):
    of_study = make(sequential, digits, "ewc")
    steps(of_study, 4)  # a boundary is behind the last of them
    anchor = of_study.learner.methods["ewc"].anchor
    left = torch.cat([w.flatten() for w in acting_weights(of_study.net).values()])
    assert torch.equal(anchor, left)


@pytest.mark.parametrize("spectral_norm", [False, True])
def test_the_penalty_by_hand(digits, spectral_norm):
    own = {"ewc.weight": 3.0}
    of_study = make(sequential, digits, "ewc", spectral_norm=spectral_norm, method_settings=own)
    ewc = of_study.learner.methods["ewc"]
    assert steps(of_study, 1)[0]["loss/ewc"] == 0  # no task has ended
    ewc.fisher.copy_(torch.rand(ewc.fisher.shape, generator=torch.Generator().manual_seed(0)))
    of_study.learner.net.eval()
    layers = [m for m in of_study.learner.net.modules() if hasattr(m, "bias")]
    acting = {id(layer): layer.weight.detach().clone() for layer in layers}
    drawn = of_study._draw()
    batch = of_study.stream.batch(drawn["stream"], 0)
    weight, loss = of_study.learner.losses(batch, drawn["methods"])["loss/ewc"]
    moved = torch.cat([w.detach().flatten() for w in acting_weights(of_study.net).values()])
    assert weight == 3.0
    expected = sum(
        float(f) * (float(a) - float(b)) ** 2 / 2
        for f, a, b in zip(ewc.fisher, moved, ewc.anchor, strict=True)
    )
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    used = torch.cat([w.flatten() for w in acting.values()])
    assert torch.isin(used, moved).all()  # the weights as the layers use them
