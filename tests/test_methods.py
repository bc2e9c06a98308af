"""What is tried against forgetting, in both studies, and how arms are made of it."""

import copy
import io
import math

import pytest
import torch
import torch.nn.functional as F
from test_gan import study as gan
from test_sequential import study as sequential

from forgetting import methods
from forgetting.errors import UserError
from forgetting.learner import Method
from forgetting.methods import parse
from forgetting.networks import acting_weights, scale_images
from forgetting.rotation import turned_copies
from gan.models import MODELS

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
    drawn = {**gan._draw_real(gan.draws), **gan._draw_fake(gan.draws)}
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


# ------------------------------------------------------------------ replay


def old_rows(of_study, n):
    """The batches that the net was given, as (images, targets, tasks, labels)."""
    seen = []
    objective = of_study.learner.objective

    def spy(batch, logits):
        seen.append(copy.copy(batch))
        return objective(batch, logits)

    of_study.learner.objective = spy
    steps(of_study, n)
    return seen


def test_a_reservoir_keeps_every_row_alike(digits):
    """Of 640 rows 20 are kept: how often each fifth of them is, over many seeds."""
    kept = torch.zeros(5)
    for seed in range(60):
        replay = parse("replay").make(seed, {"replay.size": 20, "replay.rows": 4}, {})[0]
        replay.setup(sequential(digits, seed=seed).learner)
        place_of = torch.full((20,), -1)
        for step in range(40):
            place = replay.draw("classifier", 16, step)["place"]
            for row, p in enumerate(place.tolist()):
                if p < 20:
                    place_of[p] = step * 16 + row
        assert (place_of >= 0).all() and int(replay.seen) == 640
        kept += torch.bincount(place_of // 128, minlength=5)
    assert kept.sum() == 1200
    assert (kept - 240).abs().max() < 4 * (1200 * 0.2 * 0.8) ** 0.5


def test_rows_that_want_one_place_do_not_meet():
    replay = parse("replay").methods[0]({"size": 3, "rows": 1}, 0)
    replay.room, replay.seen = 3, torch.tensor(3)
    for step in range(50):
        place = replay.draw("classifier", 16, step)["place"]
        kept = place[place < 3]
        assert len(kept) == len(kept.unique()) and place.max() <= 3


@pytest.mark.parametrize("size", [1000, 0, 20])
def test_a_classifiers_batch_gains_old_rows_as_they_were(digits, size):
    own = {"replay.size": size, "replay.rows": 8}
    of_study = make(sequential, digits, "replay", head="per_task", method_settings=own)
    batches = old_rows(of_study, 6)
    assert [len(batch.images) for batch in batches] == [16] + [24] * 5  # no past at first
    past = {}
    for batch in batches:
        for image, *row in zip(
            batch.images[16:], batch.targets[16:], batch.tasks[16:], batch.labels[16:], strict=True
        ):
            assert tuple(map(float, row)) in past[image.numpy().tobytes()]
        for image, *row in zip(
            batch.images[:16], batch.targets[:16], batch.tasks[:16], batch.labels[:16], strict=True
        ):
            past.setdefault(image.numpy().tobytes(), set()).add(tuple(map(float, row)))
    assert set(batches[-1].tasks[16:].tolist()) <= {0, 1} and of_study.position == 6
    assert of_study.learner.methods["replay"].room == (size or 80 * 16)


def test_half_of_a_discriminators_fakes_are_old_ones(digits):
    of_study = make(gan, digits, "replay", d_steps=2)
    of_d = [batch for batch in old_rows(of_study, 3) if batch.player == "discriminator"]
    assert len(of_d) == 6 and all(len(batch.images) == 32 for batch in of_d)
    plain = make(gan, digits, d_steps=2)
    alone = [batch for batch in old_rows(plain, 1) if batch.player == "discriminator"]
    assert torch.equal(of_d[0].images, alone[0].images)  # no past at first
    assert torch.equal(of_d[1].images[:16], alone[1].images[:16])  # the real images
    changed = (of_d[1].images != alone[1].images).flatten(1).any(1)
    assert changed.tolist() == [False] * 16 + [True] * 8 + [False] * 8
    for image in of_d[1].images[16:24]:  # a fake of the update before, to 8 bits
        assert min((image - old).abs().max() for old in alone[0].images[16:]) <= 0.5 / 127.5 + 1e-6
    assert all(len(batch.images) == 16 for batch in old_rows(of_study, 1)[2:])  # the generator's


def test_old_fakes_keep_their_class(digits):
    of_study = make(gan, digits, model="cond+replay")
    batches = old_rows(of_study, 4)
    shown = {}
    for batch in batches[0::2]:
        for image, label in zip(batch.images[24:], batch.labels[24:], strict=True):
            shown[(((image + 1) * 127.5).round()).numpy().tobytes()] = int(label)
    known = 0
    for batch in batches[2::2]:
        for image, label in zip(batch.images[16:24], batch.labels[16:24], strict=True):
            bytes_ = (((image + 1) * 127.5).round()).numpy().tobytes()
            if bytes_ in shown:
                known += 1
                assert shown[bytes_] == int(label)
    assert known > 0


def test_replay_warns_where_one_output_serves_all_tasks(digits, capsys):
    make(sequential, digits, "replay")
    assert capsys.readouterr().out.count("warning: replay with head=shared") == 1
    make(sequential, digits, "replay", head="per_task"), make(gan, digits, "replay")
    assert capsys.readouterr().out == ""


def test_more_old_fakes_than_there_are_are_refused():
    arm = parse("uncond+replay", "model", MODELS)
    with pytest.raises(UserError, match=r"replay.rows: at most the batch's 16 fakes, not 17"):
        arm.check({"replay.rows": 17}, {}, "discriminator", 16)
    arm.check({"replay.rows": 16}, {}, "discriminator", 16)
    parse("replay").check({"replay.rows": 17}, {}, "classifier", 16)


# ------------------------------------------------------------------ ewc


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


# ------------------------------------------------------------------ shuffled


@STUDIES
def test_shuffled_has_the_images_and_rows_of_rotation_and_other_labels(digits, study):
    arms = [make(study, digits, name) for name in ("rotation", "shuffled")]
    seen = []
    for arm in arms:
        forward = arm.learner.net.forward
        rows = []
        seen.append(rows)
        arm.learner.net.forward = lambda x, f=forward, rows=rows: rows.append(x.clone()) or f(x)
    for arm in arms:
        arm.step()
    assert torch.equal(seen[0][0], seen[1][0]) and len(seen[0]) == len(seen[1])
    assert [len(x) for x in seen[0]] == [len(x) for x in seen[1]]
    player = arms[0].learner.player
    for step in range(3):
        true, false = (arm.learner.draw(player, 16, step) for arm in arms)
        assert torch.equal(true["rotation"]["rows"], false["shuffled"]["rows"])
        labels, shuffled = true["rotation"]["labels"], false["shuffled"]["labels"]
        assert not torch.equal(labels, shuffled) and torch.equal(labels, shuffled.sort().values)


# ------------------------------------------------------------------ augment in a GAN


def test_augment_turns_real_images_and_fakes(digits):
    plain, augmented = make(gan, digits), make(gan, digits, "augment")
    (d, g), (turned_d, turned_g) = (old_rows(s, 1) for s in (plain, augmented))
    n = 16
    assert torch.equal(turned_d.images[: 2 * n], d.images)
    assert torch.equal(turned_d.images[32:44], turned_copies(d.images[12:16]))
    assert torch.equal(turned_d.images[44:], turned_copies(d.images[28:32]))
    assert turned_d.targets.tolist() == [1] * 16 + [0] * 16 + [1] * 12 + [0] * 12
    assert turned_d.real == [slice(0, 16), slice(32, 44)]
    assert turned_d.fake == [slice(16, 32), slice(44, 56)]
    assert len(turned_g.images) == 28 and turned_g.fake == [slice(0, 16), slice(16, 28)]
    assert len(g.images) == 16


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


# ------------------------------------------------------------------ arms


def test_methods_are_the_files_of_their_folder():
    known = {"augment", "ewc", "replay", "rotation", "shuffled", "vanilla"}
    assert set(methods.available()) >= known
    for name, method in methods.available().items():
        assert method.name == name and method.__doc__
    listed = methods.describe()
    assert "ewc.weight=100.0" in listed and "rotation_weight" in listed


@pytest.mark.parametrize(
    "text, key, names",
    [
        ("vanilla", "vanilla", []),
        ("rotation", "rotation", ["rotation"]),
        ("rotation+replay", "replay+rotation", ["replay", "rotation"]),
        ("vanilla+ewc", "ewc", ["ewc"]),
    ],
)
def test_arms_of_the_sequential_study(text, key, names):
    arm = parse(text)
    assert (arm.name, arm.key, [method.name for method in arm.methods]) == (text, key, names)


@pytest.mark.parametrize(
    "text, key, names",
    [
        ("uncond", "uncond", []),
        ("ssgan", "ssgan", ["rotation"]),
        ("uncond+rotation", "ssgan", ["rotation"]),
        ("uncond+rotation+ewc", "ssgan+ewc", ["ewc", "rotation"]),
        ("ssgan+ewc", "ssgan+ewc", ["ewc", "rotation"]),
        ("cond+rotation", "cond+rotation", ["rotation"]),
        ("rotation_only", "rotation_only", ["rotation"]),
    ],
)
def test_arms_of_the_probe_study(text, key, names):
    arm = parse(text, "model", MODELS)
    assert (arm.key, [method.name for method in arm.methods]) == (key, names)


def test_what_an_arm_uses():
    assert parse("vanilla").uses == parse("ewc").uses == set()
    assert parse("augment").uses == {"rotated_images"}
    assert {"alpha", "alpha_end", "beta"} < parse("ssgan", "model", MODELS).uses
    assert not parse("rotation_only", "model", MODELS).uses & {"alpha", "alpha_end", "beta"}
    assert parse("ewc+replay").settings.keys() == {
        *("ewc.weight", "ewc.gamma", "ewc.batches", "replay.size", "replay.rows")
    }
    assert parse("ewc").checked({"ewc.weight": 3})["ewc.weight"] == 3.0


@pytest.mark.parametrize(
    "text, line",
    [
        ("rotatoin", "method: rotatoin is no method; did you mean rotation?"),
        ("xyz", f"method: xyz is no method; there are {', '.join(methods.available())}, or "),
        ("rotation+", "method: nothing is no method; there are "),
        ("rotation+rotation", "method: rotation stands twice in rotation+rotation"),
        ("rotation+shuffled", "method: shuffled stands in for rotation; take one of them"),
        ("missing.py", "method: missing.py cannot be read: No such file"),
    ],
)
def test_a_bad_method_is_one_line(text, line):
    with pytest.raises(UserError) as refused:
        parse(text)
    assert str(refused.value).startswith(line) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "text, line",
    [
        ("unconf", "model: unconf is no model; did you mean uncond?"),
        ("replay", "model: replay is no model; a model stands in front, as in uncond+replay"),
        ("uncond+ssgan", "model: ssgan is a model, and stands in front of the methods"),
        ("ssgan+rotation", "model: rotation stands twice in ssgan+rotation"),
    ],
)
def test_a_bad_model_is_one_line(text, line):
    with pytest.raises(UserError) as refused:
        parse(text, "model", MODELS)
    assert str(refused.value) == line


def test_the_control_without_a_generator_takes_no_methods(digits):
    with pytest.raises(UserError, match="model: rotation_only has no fakes to forget"):
        gan(digits, model="rotation_only+replay")


@pytest.mark.parametrize(
    "key, value, line",
    [
        ("ewc.weight", 1, "ewc.weight: ewc is no part of replay"),
        ("replay.sice", 1, "replay.sice: no such setting; did you mean replay.size?"),
        ("replay.size", -1, "replay.size: it must be a whole number from 0"),
    ],
)
def test_bad_settings_of_methods_are_one_line(key, value, line):
    with pytest.raises(UserError) as refused:
        parse("replay").checked({key: value})
    assert str(refused.value).startswith(line) and "\n" not in str(refused.value)


ONE = "from forgetting.learner import Method\n\nclass Mine(Method):\n    'Mine.'\n"


@pytest.mark.parametrize(
    "name, text, line",
    [
        ("none.py", "x = 1\n", "none.py: it must have one Method in it, not 0"),
        ("two.py", ONE + "\nclass Other(Method):\n    pass\n", "two.py: it must have one Method"),
        ("wrong.py", "def f(:\n", "wrong.py: line 1: SyntaxError: "),
        ("fails.py", "1 / 0\n", "fails.py: ZeroDivisionError: division by zero"),
        ("rotation.py", ONE, "method: the name rotation of "),
        ("two words.py", ONE, "method: "),
        ("latin.py", b"# \xff\n", "method: "),
    ],
)
def test_a_bad_file_is_one_line(tmp_path, name, text, line):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError) as refused:
        parse(str(tmp_path / name))
    assert str(refused.value).startswith(line) and "\n" not in str(refused.value)


def test_a_users_file_has_name_hash_and_text(tmp_path, monkeypatch):
    (tmp_path / "my_idea.py").write_text(ONE)
    monkeypatch.chdir(tmp_path)
    arm = parse("./my_idea.py+ewc")
    assert arm.name == "my_idea+ewc" and arm.key == "ewc+my_idea"
    assert arm.asked == f"{tmp_path}/my_idea.py+ewc"
    (file,) = arm.files
    assert (file.name, file.text, len(file.sha256)) == ("my_idea", ONE, 64)
    (tmp_path / "my_idea.py").write_text(ONE + "    changed = True\n")
    (other,) = parse("./my_idea.py").files
    assert other.sha256 != file.sha256 and parse("./my_idea.py").methods[0].changed


@pytest.mark.parametrize("name", ["uncond", "ssgan"])
def test_a_file_with_a_models_name_is_refused(tmp_path, name):
    (tmp_path / f"{name}.py").write_text(ONE)
    with pytest.raises(UserError, match=f"model: the name {name} of .* is taken"):
        parse(f"cond+{tmp_path}/{name}.py", "model", MODELS)


def test_images_come_back_from_bytes(digits):
    from forgetting.networks import to_bytes

    assert torch.equal(to_bytes(scale_images(digits.test_images)), digits.test_images)
