"""What holds of every method against forgetting, in both studies, and of the hooks it may have."""

import copy
import io
import math

import pytest
import torch
from test_gan import study as gan
from test_sequential import study as sequential

from forgetting import methods
from forgetting.errors import UserError
from forgetting.learner import Method

METHODS = [  # one that takes the task's place has its tests in test_planting.py
    name for name, of in methods.available().items() if name != "vanilla" and not of.uniform
]
FIRST = {sequential: "method", gan: "model"}
STUDIES = pytest.mark.parametrize("study", [sequential, gan], ids=["sequential", "gan"])


def each_in_its_studies(names):
    """What is for a discriminator alone meets recorded opponents in test_gan_cures.py."""
    both = [("sequential", sequential), ("gan", gan)]
    found = [
        pytest.param(study, name, id=f"{name}-{word}")
        for name in names
        for word, study in both
        if study is gan or "classifier" in methods.available()[name].players
    ]
    return pytest.mark.parametrize(("study", "name"), found)


def make(study, digits, *names, weight=None, **changes):
    """A study of an arm with these methods; weight: of all of them that have one."""
    arm = "+".join(names or ("vanilla",)) if study is sequential else "+".join(("uncond", *names))
    if weight is not None:
        own = {f"{n}.weight": weight for n in names if "weight" in methods.available()[n].settings}
        own |= {f"{n}.start": 0 for n in names if "start" in methods.available()[n].settings}
        of_rotation = ["rotation_weight"] if study is sequential else ["alpha", "alpha_end", "beta"]
        changes = {"method_settings": own, **dict.fromkeys(of_rotation, weight), **changes}
    if study is gan:
        changes = {"boundary_every": 2, **changes}
    return study(digits, **{FIRST[study]: arm, **changes})


def steps(learner, n):
    return [{k: v.item() for k, v in learner.step().items()} for _ in range(n)]


def weights(of_study):
    nets = [of_study.learner.net, getattr(of_study, "generator", None)]
    return torch.cat([p.detach().flatten() for net in nets if net for p in net.parameters()])


def stored(state):
    """As a checkpoint keeps it."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def weighs(name):
    """Whether a method has a weight, of its own or of the studies'."""
    method = methods.available()[name]
    return "weight" in method.settings or "rotation_weight" in method.uses


# ------------------------------------------------------------------ all methods, by themselves


@each_in_its_studies(METHODS)
def test_every_method_trains_and_goes_on_to_the_bit_from_the_middle(digits, study, name):
    """Taken up in the middle of a task, and once more right behind a boundary."""
    changes = {"spectral_norm": True, "head": "per_task"} if study is sequential else {}
    through = make(study, digits, name, **changes)
    first = steps(through, 3)
    assert all(math.isfinite(v) for step in first for v in step.values())
    for more in (1, 3):
        restored = make(study, digits, name, seed=9, **changes)
        restored.load_state_dict(stored(through.state_dict()))
        assert steps(restored, more) == steps(through, more)
        assert torch.equal(weights(restored), weights(through))


@each_in_its_studies(filter(weighs, METHODS))
def test_without_weight_a_method_is_its_baseline_to_the_bit(digits, study, name):
    plain, weightless = make(study, digits), make(study, digits, name, weight=0.0)
    seen = []
    forward = weightless.learner.net.forward
    weightless.learner.net.forward = lambda images: seen.append(len(images)) or forward(images)
    assert steps(weightless, 5) == steps(plain, 5)
    assert torch.equal(weights(weightless), weights(plain))
    assert set(seen) <= {16, 32}  # no rows but the stream's
    weighty = make(study, digits, name, weight=1.0)
    steps(weighty, 7), steps(plain, 2)  # one task and a half, which ewc needs
    assert not torch.equal(weights(weighty), weights(plain))


@each_in_its_studies(METHODS)
def test_methods_start_where_the_baseline_does(digits, study, name):
    assert torch.equal(weights(make(study, digits, name)), weights(make(study, digits)))


@STUDIES
def test_methods_combine(digits, study):
    every = make(study, digits, "augment", "ewc", "replay", "rotation")
    logged = steps(every, 5)[-1]
    ends = {"loss/ewc", "loss/rotation"} if study is sequential else {"loss/ewc_d"}
    assert ends <= logged.keys() and all(map(math.isfinite, logged.values()))
    other = make(study, digits, "rotation", "replay", "ewc", "augment")
    assert steps(other, 5)[-1] == logged  # an arm is a set


# ------------------------------------------------------------------ whose loss it is


def graph_of(of_study, player):
    """The losses of a player's update, with their graph."""
    gan = of_study.gan
    drawn = gan._draw_batch(gan.draws)
    batch = getattr(gan, f"{player}_batch")(drawn)
    return of_study.learner.losses(batch, of_study.learner.draw(player, 16, 0))


def reached(loss, net):
    trained = [p for p in net.parameters() if p.requires_grad]  # a method may freeze some
    found = torch.autograd.grad(loss, trained, retain_graph=True, allow_unused=True)
    return any(g is not None and g.abs().sum() > 0 for g in found)


@pytest.mark.parametrize("name", METHODS)
def test_a_loss_reaches_the_player_it_is_for(digits, name):
    study = make(gan, digits, name)
    steps(study, 2)  # a boundary, from which ewc takes its anchor
    steps(study, 1)
    study.learner.train(), study.generator.train()
    for loss_name, (_, loss) in graph_of(study, "discriminator").items():
        assert loss_name.endswith("d") and not reached(loss, study.generator)
        assert reached(loss, study.discriminator)
    study.discriminator.requires_grad_(False)
    for loss_name, (_, loss) in graph_of(study, "generator").items():
        assert loss_name.endswith("g") and reached(loss, study.generator)


# ------------------------------------------------------------------ boundaries


@each_in_its_studies(METHODS)
def test_a_boundary_leaves_buffers_and_other_draws_as_they_were(digits, study, name):
    of_study = make(study, digits, name, spectral_norm=True)
    steps(of_study, 1)
    nets = [of_study.learner.net, getattr(of_study, "generator", None)]
    before = [copy.deepcopy(net.state_dict()) for net in nets if net]
    modes = [m.training for net in nets if net for m in net.modules()]
    state, global_draws = copy.deepcopy(of_study.state_dict()), torch.get_rng_state()
    if study is sequential:
        of_study.learner.boundary(of_study._batches_of_the_task)
    else:
        of_study.gan.boundary()
    for net, kept in zip(filter(None, nets), before, strict=True):
        assert all(torch.equal(value, kept[key]) for key, value in net.state_dict().items())
    assert modes == [m.training for net in nets if net for m in net.modules()]
    assert torch.equal(torch.get_rng_state(), global_draws)
    now = of_study.state_dict()
    draws = [s["draws"] if study is gan else {"stream": s["stream"]} for s in (now, state)]
    for purpose in draws[0].keys() - {"boundary"}:
        assert torch.equal(draws[0][purpose], draws[1][purpose])
    own = "draws" if study is gan else "boundary"
    drawn = [s["draws"]["boundary"] if own == "draws" else s["boundary"] for s in (now, state)]
    takes_none = type(of_study.learner.methods[name]).boundary is Method.boundary
    assert torch.equal(*drawn) or not takes_none


@pytest.mark.parametrize("switch", ["abrupt", "none"])
def test_boundaries_are_where_tasks_change(digits, switch):
    changes = {"head": "per_task", "switch": switch, "iterations_per_task": 2}
    of_study = make(sequential, digits, "ewc", **changes)
    ewc, seen = of_study.learner.methods["ewc"], []
    for step in range(1, of_study.total_steps + 1):
        before = ewc.anchor.clone()
        of_study.step()
        if not torch.equal(before, ewc.anchor):
            seen.append(step)
    assert seen == list(range(2, of_study.total_steps, 2))  # the last task has no next one


def test_the_batches_of_a_boundary_are_of_the_task_that_ends(digits):
    of_study = make(sequential, digits, "ewc")
    taken = []
    of_study.learner.methods["ewc"].boundary = lambda learner, batches: taken.append(next(batches))
    steps(of_study, 9)
    assert [batch.tasks.unique().tolist() for batch in taken] == [[0], [1]]


# ------------------------------------------------------------------ hooks


class Spoilt(Method):
    """A loss that is no scalar."""

    name = "spoilt"

    def loss(self, learner, batch, out, drawn):
        return 1.0, out.features.sum(1)


class Watching(Method):
    """Halves the gradients and counts."""

    name = "watching"

    def setup(self, learner):
        self.seen = []

    def after_backward(self, learner, batch):
        for parameter in learner.net.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(0)

    def after_step(self, learner, batch):
        self.seen.append((batch.player, batch.step))


class Teacher(Method):
    """A copy of the net as it began, which features stay near."""

    name = "teacher"

    def setup(self, learner):
        self.net = copy.deepcopy(learner.net).requires_grad_(False)

    def loss(self, learner, batch, out, drawn):
        return 1.0, (out.features - self.net(batch.images)).square().mean()


def test_what_a_method_freezes_stays_frozen(digits):
    """Also through the generator's updates, which freeze the discriminator and set it free."""
    of_study = make(gan, digits)
    teacher = with_method(of_study, Teacher)
    before = copy.deepcopy(list(teacher.net.parameters()))
    steps(of_study, 3)
    assert not any(p.requires_grad for p in teacher.net.parameters())
    assert all(map(torch.equal, before, teacher.net.parameters()))
    assert all(p.requires_grad for p in of_study.discriminator.parameters())


def with_method(of_study, method):
    made = method({}, 0)
    made.setup(of_study.learner)
    of_study.learner.methods[method.name] = made
    return made


@STUDIES
def test_a_loss_that_is_no_scalar_is_named(digits, study):
    of_study = make(study, digits)
    with_method(of_study, Spoilt)
    with pytest.raises(UserError) as refused:
        of_study.step()
    n = 32 if study is gan else 16
    line = f"spoilt: its loss must be a weight and a scalar tensor, not ({n},), at step 1"
    assert str(refused.value) == line
    alone = with_method(make(study, digits), Spoilt)
    alone.loss = lambda *_: torch.tensor(1.0)
    of_study.learner.methods["spoilt"] = alone
    with pytest.raises(UserError, match="a scalar tensor, not Tensor alone, at step 1"):
        of_study.step()


@STUDIES
def test_hooks_around_the_step(digits, study):
    of_study = make(study, digits)
    watching = with_method(of_study, Watching)
    before = copy.deepcopy(list(of_study.learner.net.parameters()))
    steps(of_study, 2)
    player = of_study.learner.player
    assert watching.seen == [(player, 0), (player, 1)]  # not in the generator's updates
    assert all(map(torch.equal, before, of_study.learner.net.parameters()))
