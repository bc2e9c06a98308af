"""The cures from the literature, each against its definition by hand. What holds of all methods
alike is in test_methods.py."""

import copy

import pytest
import torch
import torch.nn.functional as F
from test_methods import STUDIES, gan, make, sequential, steps, stored, weights

from forgetting.errors import UserError
from forgetting.graphs import WARM_UP, GraphedIteration
from forgetting.learner import Batch
from forgetting.methods import parse
from forgetting.networks import acting_weights, scale_images
from forgetting.tiles import ORDERS, permuted
from gan.models import MODELS

ALL = ("agem", "averaging", "der", "jigsaw", "l2", "lwf", "rotation", "si", "slow")
PER_TASK = {"head": "per_task"}


def method(of_study, name):
    return of_study.learner.methods[name]


def next_batch(of_study) -> tuple[Batch, dict]:
    """Of the net under study, and what methods draw for it."""
    of_study.learner.train()
    if hasattr(of_study, "gan"):
        drawn = of_study.gan._draw_update("discriminator")
        return of_study.gan.discriminator_batch(drawn), drawn["methods"]
    drawn = of_study._draw()
    return of_study.stream.batch(drawn["stream"], of_study.position), drawn["methods"]


def loss_of(of_study, name):
    """(weight, value, batch, drawn) of a method's loss in the next update, without its step."""
    batch, drawn = next_batch(of_study)
    suffix = "_d" if hasattr(of_study, "gan") else ""
    weight, loss = of_study.learner.losses(copy.copy(batch), drawn)[f"loss/{name}{suffix}"]
    return weight, loss, batch, drawn.get(name)


def logits(net, images, batch, rows=slice(None)):
    """As the net has them in evaluation: without a power iteration."""
    condition = batch.column(net.condition)
    return net.logits(net(images), None if condition is None else condition[rows])


def flat(tensors):
    return torch.cat([x.detach().flatten() for x in tensors])


# ------------------------------------------------------------------ der


@STUDIES
def test_der_by_hand(digits, study):
    own = {"der.alpha": 0.3, "der.beta": 0.7, "der.rows": 5, "der.size": 40}
    changes = PER_TASK if study is sequential else {"spectral_norm": False}
    of_study = make(study, digits, "der", method_settings=own, **changes)
    steps(of_study, 6)
    der, net = method(of_study, "der"), of_study.learner.net
    kept = {name: getattr(der, name).clone() for name in der.kept}
    weight, loss, batch, drawn = loss_of(of_study, "der")
    old, again = drawn["old"], drawn["again"]
    assert weight == 1 and len(old) == len(again) == 5 and not torch.equal(old, again)

    def said(places):
        tasks = kept["tasks"][places] if study is sequential else None
        return net.logits(net(scale_images(kept["images"][places])), tasks)

    squared = (said(old) - kept["logits"][old]).square().mean()
    if study is sequential:
        right = F.binary_cross_entropy_with_logits(said(again), kept["targets"][again])
    else:  # the hinge loss, of as many real images and old fakes
        real = net.logits(net(batch.images[:5]), None)
        right = F.relu(1 - real).mean() + F.relu(1 + said(again)).mean()
        assert not kept["targets"].any()
    assert loss.item() == pytest.approx((0.3 * squared + 0.7 * right).item(), rel=1e-4)


def test_der_stores_rows_with_what_the_net_says_of_them(digits):
    of_study = make(sequential, digits, "der", **PER_TASK)
    _, _, batch, drawn = loss_of(of_study, "der")
    der, place = method(of_study, "der"), drawn["place"]
    said = logits(of_study.net, batch.images, batch)
    assert torch.equal(place, torch.arange(16))
    torch.testing.assert_close(der.logits[place], said.detach())
    assert torch.equal(der.tasks[place], batch.tasks)
    assert torch.equal(scale_images(der.images[place]), batch.images)


@STUDIES
def test_der_without_both_weights_is_the_baseline_to_the_bit(digits, study):
    own = {"der.alpha": 0.0, "der.beta": 0.0}
    plain, weightless = make(study, digits), make(study, digits, "der", method_settings=own)
    assert steps(weightless, 5) == steps(plain, 5)
    assert torch.equal(weights(weightless), weights(plain))


# ------------------------------------------------------------------ agem


@STUDIES
@pytest.mark.parametrize("against", [False, True])
def test_a_step_of_agem_does_not_go_against_old_rows(digits, study, against, monkeypatch):
    """against: the old rows' targets are turned round, so that the gradients are at odds."""
    of_study = make(study, digits, "agem", **(PER_TASK if study is sequential else {}))
    steps(of_study, 2)
    agem, learner, net = method(of_study, "agem"), of_study.learner, of_study.learner.net
    batch, drawn = next_batch(of_study)
    after_backward, seen = agem.after_backward, {}

    def spy(learner, batch):
        if against:
            objective = learner.objective
            turned = lambda b, x: {k: -v for k, v in objective(b, x).items()}  # noqa: E731
            monkeypatch.setattr(learner, "objective", turned)
        past, buffers = agem.past, [b.clone() for b in net.buffers()]
        net.eval()
        loss = sum(learner.objective(past, logits(net, past.images, past)).values())
        net.train()
        moved = [p for p in net.parameters() if p.grad is not None]
        seen["old"] = flat(torch.autograd.grad(loss, moved, materialize_grads=True))
        seen["before"] = flat(p.grad for p in moved)
        after_backward(learner, batch)
        seen["after"] = flat(p.grad for p in moved)
        assert all(map(torch.equal, buffers, net.buffers()))  # no other power iteration

    monkeypatch.setattr(agem, "after_backward", spy)
    learner.update(batch, drawn)
    g, old, after = (seen[name] for name in ("before", "old", "after"))
    if against:
        assert g @ old < 0
        torch.testing.assert_close(after, g - (g @ old) / (old @ old) * old)
        assert abs(after @ old) < 1e-4 * abs(g @ old)
    else:
        assert g @ old > 0 and torch.equal(after, g)


def test_old_fakes_stand_beside_as_many_real_images(digits):
    of_study = make(gan, digits, "agem", method_settings={"agem.rows": 5})
    steps(of_study, 2)
    past = method(of_study, "agem").past
    assert past.targets.tolist() == [1] * 5 + [0] * 5
    assert (past.real, past.fake) == ([slice(0, 5)], [slice(5, 10)]) and len(past.images) == 10


# ------------------------------------------------------------------ si


@STUDIES
def test_the_path_is_the_objectives_gradient_times_the_step(digits, study):
    of_study = make(study, digits, "si", "rotation", spectral_norm=True)
    steps(of_study, 3)
    si, learner, net = method(of_study, "si"), of_study.learner, of_study.learner.net
    batch, drawn = next_batch(of_study)
    alone, before, path = copy.deepcopy(net), flat(net.parameters()), si.path.clone()
    said = alone.logits(alone(batch.images), batch.column(net.condition))
    sum(learner.objective(batch, said).values()).backward()
    gradient = flat(torch.zeros_like(p) if p.grad is None else p.grad for p in alone.parameters())
    learner.update(batch, drawn)
    step = flat(net.parameters()) - before
    torch.testing.assert_close(si.path - path, -gradient * step, rtol=1e-3, atol=1e-8)
    names = [name for name, p in net.named_parameters() for _ in range(p.numel())]
    of_rotation = torch.tensor([name.startswith("rotation_head") for name in names])
    assert step[of_rotation].any() and not si.path[of_rotation].any()


def test_importance_and_penalty_by_hand(digits):
    own = {"si.weight": 2.0, "si.xi": 0.01}
    of_study = make(sequential, digits, "si", method_settings=own)
    si, net = method(of_study, "si"), of_study.net
    start = flat(net.parameters())
    assert all(step["loss/si"] == 0 for step in steps(of_study, 3))
    si.path[:7] = -1e-3  # which would reward steps away
    path = si.path.clone()
    of_study.learner.boundary(of_study._batches_of_the_task)
    ended = flat(net.parameters())
    importance = path / ((ended - start).square() + 0.01)
    torch.testing.assert_close(si.importance, importance.clamp(min=0))
    assert not si.importance[:7].any()
    assert torch.equal(si.anchor, ended) and not si.path.any()
    steps(of_study, 2)
    weight, loss, *_ = loss_of(of_study, "si")
    moved = flat(net.parameters()) - si.anchor
    assert weight == 2.0
    assert loss.item() == pytest.approx((si.importance * moved**2).sum().item(), rel=1e-4)


# ------------------------------------------------------------------ lwf


def test_every_earlier_tasks_output_is_distilled(digits):
    own = {"lwf.weight": 3.0, "lwf.temperature": 4.0}
    of_study = make(sequential, digits, "lwf", method_settings=own, **PER_TASK)
    assert all(step["loss/lwf"] == 0 for step in steps(of_study, 4))
    steps(of_study, 4)
    old = copy.deepcopy(of_study.net)
    steps(of_study, 2)
    weight, loss, batch, _ = loss_of(of_study, "lwf")
    net, expected = of_study.net, 0.0
    for task in (0, 1):  # which have ended; the rows are of task 2
        new, said = (n.binary_head(n(batch.images))[:, task] / 4 for n in (net, old))
        p = said.sigmoid()
        expected -= (p * F.logsigmoid(new) + (1 - p) * F.logsigmoid(-new)).mean().item()
    assert batch.tasks.unique().tolist() == [2] and weight == 3.0
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    lwf = method(of_study, "lwf")
    lwf.known.zero_()[2] = 1  # as in the next cycle: of the row's own task nothing is distilled
    assert loss_of(of_study, "lwf")[1] == 0


def test_of_a_discriminators_rows_the_real_ones_are_distilled(digits):
    of_study = make(gan, digits, "lwf", model="cond+lwf", spectral_norm=True)
    steps(of_study, 2)
    old = copy.deepcopy(of_study.discriminator).eval()
    steps(of_study, 1)
    _, loss, batch, _ = loss_of(of_study, "lwf")
    net, real = of_study.discriminator.eval(), slice(0, 16)
    new, said = (logits(n, batch.images[real], batch, real) / 2 for n in (net, old))
    expected = F.binary_cross_entropy_with_logits(new, said.sigmoid())
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    lwf = method(of_study, "lwf")
    assert not any(p.requires_grad for p in lwf.old.parameters())
    assert all(map(torch.equal, old.buffers(), lwf.old.buffers()))  # no power iteration


# ------------------------------------------------------------------ distances of weights


@STUDIES
def test_l2_by_hand(digits, study):
    of_study = make(study, digits, "l2", spectral_norm=True, method_settings={"l2.weight": 3.0})
    net = of_study.learner.net
    steps(of_study, 1)
    assert loss_of(of_study, "l2")[1] == 0  # no task has ended
    steps(of_study, 1 if study is gan else 3)
    ended = {name: w.detach().clone() for name, w in acting_weights(net).items()}
    steps(of_study, 1)
    weight, loss, *_ = loss_of(of_study, "l2")
    now = acting_weights(net)
    expected = sum(0.5 * (w - ended[name]).square().sum() for name, w in now.items())
    assert weight == 3.0 and loss.item() == pytest.approx(expected.item(), rel=1e-4) and loss > 0


@STUDIES
def test_averaging_by_hand(digits, study):
    of_study = make(study, digits, "averaging", spectral_norm=True)
    net = of_study.learner.net
    seen = [flat(acting_weights(net).values())]
    for _ in range(4):
        of_study.step()
        if study is sequential:  # in a GAN the generator's update has other power iterations
            seen.append(flat(acting_weights(net).values()))
    averaging = method(of_study, "averaging")
    assert averaging.count == 5
    if study is sequential:
        torch.testing.assert_close(averaging.mean, torch.stack(seen).mean(0))
    weight, loss, *_ = loss_of(of_study, "averaging")
    apart = flat(acting_weights(net).values()) - averaging.mean
    assert weight == 1.0 and loss.item() == pytest.approx(apart.square().sum().item(), rel=1e-4)


# ------------------------------------------------------------------ slow and frozen


@STUDIES
def test_slow_has_a_lower_learning_rate_and_nothing_else(digits, study):
    rates = {"slow.factor": 0.25}
    of_study = make(study, digits, "slow", method_settings=rates)
    learner = of_study.learner
    found = {k: o.param_groups[0]["lr"] for k, o in learner.optimisers.items()}
    assert found.pop(learner.player) == 0.25 * learner.lr
    assert all(rate == learner.lr for rate in found.values())  # a generator's
    bare = learner.bare(copy.deepcopy(learner.net))  # relearning is measured alike
    assert bare.optimisers[learner.player].param_groups[0]["lr"] == learner.lr
    same, plain = (
        make(study, digits, "slow", method_settings={"slow.factor": 1}),
        make(study, digits),
    )
    assert steps(same, 3) == steps(plain, 3) and torch.equal(weights(same), weights(plain))
    if study is sequential:  # where there is no other rate
        low = make(study, digits, lr=0.25 * learner.lr)
        assert steps(of_study, 3) == steps(low, 3)


@STUDIES
def test_frozen_learns_by_its_heads_alone(digits, study):
    of_study = make(study, digits, "frozen", "rotation", plant_updates=3)
    planted = make(study, digits, plant_updates=3)
    net = of_study.learner.net
    heads = copy.deepcopy({k: p for k, p in net.named_parameters() if "backbone" not in k})
    steps(of_study, 3)
    backbones = (of.learner.net.backbone.parameters() for of in (of_study, planted))
    assert all(map(torch.equal, *backbones))
    moved = {name.split(".")[0] for name, p in net.named_parameters()
             if name in heads and not torch.equal(p, heads[name])}  # fmt: skip
    assert moved == {"rotation_head", "binary_head" if study is sequential else "adversarial"}
    bare = of_study.learner.bare(copy.deepcopy(net))  # relearning is measured alike
    assert len(bare.trained) == len(list(net.parameters()))


# ------------------------------------------------------------------ jigsaw


def test_tiles_by_hand():
    image = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]])
    image = image.expand(2, 3, 4, 4) * torch.tensor([1, 10])[:, None, None, None]
    found = permuted(image, torch.tensor([[3, 0, 2, 1], [0, 1, 2, 3]]))
    assert found[0, 1].tolist() == [[3, 3, 0, 0], [3, 3, 0, 0], [2, 2, 1, 1], [2, 2, 1, 1]]
    assert torch.equal(found[1], image[1])
    assert len(set(map(tuple, ORDERS.tolist()))) == 24


def test_jigsaw_by_hand(digits):
    of_study = make(sequential, digits, "jigsaw", rotated_images=4)
    weight, loss, batch, drawn = loss_of(of_study, "jigsaw")
    rotation = make(sequential, digits, "rotation", rotated_images=4)
    turned = rotation.learner.draw("classifier", 16, 0)["rotation"]["rows"]
    assert torch.equal(drawn["rows"], turned.repeat(3)) and len(drawn["labels"]) == 12
    tiles = permuted(batch.images[drawn["rows"]], ORDERS[drawn["labels"]])
    said = method(of_study, "jigsaw").head(of_study.net(tiles)).log_softmax(1)
    expected = -said[torch.arange(12), drawn["labels"]].mean()
    assert weight == 1.0 and loss.item() == pytest.approx(expected.item(), rel=1e-4)
    other = make(sequential, digits, "jigsaw", seed=1, rotated_images=4).learner
    labels = other.draw("classifier", 16, 0)["jigsaw"]["labels"]
    assert not torch.equal(labels, drawn["labels"])


def test_jigsaw_is_learnt(digits):
    of_study = make(sequential, digits, "jigsaw", width=16, lr=2e-3,
                    rotated_images=16, iterations_per_task=120)  # fmt: skip
    before = of_study.evaluate()["accuracy/jigsaw"]
    steps(of_study, 120)
    assert before < 0.15 < of_study.evaluate()["accuracy/jigsaw"]  # chance is 0.04


def test_the_generators_share_of_jigsaw(digits):
    logged = steps(make(gan, digits, "jigsaw"), 1)[0]
    assert {"loss/jigsaw_d", "loss/jigsaw_g"} <= logged.keys()
    of_d = make(gan, digits, "jigsaw", method_settings={"jigsaw.alpha": 0.0})
    assert "loss/jigsaw_g" not in steps(of_d, 1)[0]


# ------------------------------------------------------------------ all of them


@STUDIES
def test_they_combine_and_go_on_to_the_bit(digits, study):
    changes = {"spectral_norm": True} | (PER_TASK if study is sequential else {})
    through = make(study, digits, *ALL, **changes)
    steps(through, 5)
    restored = make(study, digits, *ALL, seed=3, **changes)
    restored.load_state_dict(stored(through.state_dict()))
    assert steps(restored, 3) == steps(through, 3)
    assert torch.equal(weights(restored), weights(through))
    turned = make(study, digits, *reversed(ALL), **changes)
    fresh = make(study, digits, *ALL, **changes)
    assert steps(turned, 2) == steps(fresh, 2)  # an arm is a set


@STUDIES
def test_they_step_from_static_buffers_as_they_do_plainly(digits, study):
    plain, static = (make(study, digits, *ALL) for _ in range(2))
    stepping = getattr(static, "gan", static)
    optimisers = static.learner.optimisers.values()
    stepping.iterate = GraphedIteration(stepping._compute, optimisers, torch.device("cpu"))
    assert steps(plain, WARM_UP + 2) == steps(static, WARM_UP + 2)
    assert torch.equal(weights(plain), weights(static))


@pytest.mark.parametrize(
    "key, value, line",
    [
        ("der.alpha", -1, "der.alpha: it must be a number, 0 or more, not -1"),
        ("der.rows", 17, "der.rows: at most the batch's 16 fakes, not 17"),
        ("agem.rows", 17, "agem.rows: at most the batch's 16 fakes, not 17"),
        ("si.xi", 0, "si.xi: it must be a number above 0, not 0"),
        ("lwf.temperature", 0, "lwf.temperature: it must be a number above 0, not 0"),
        ("slow.factor", 2, "slow.factor: it must be a number above 0 and up to 1, not 2"),
        ("l2.wieght", 1, "l2.wieght: no such setting; did you mean l2.weight?"),
        ("averaging.weight", "x", "averaging.weight: it must be a number, 0 or more, not 'x'"),
        ("jigsaw.alpha", -0.1, "jigsaw.alpha: it must be a number, 0 or more, not -0.1"),
    ],
)
def test_a_bad_setting_is_one_line(key, value, line):
    arm = parse(f"uncond+{key.split('.')[0]}", "model", MODELS)
    with pytest.raises(UserError) as refused:
        arm.check({key: value}, {}, "discriminator", 16)
    assert str(refused.value) == line
