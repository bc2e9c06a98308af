import contextlib
import copy
from functools import partial

import numpy as np
import pytest
import torch
from torch.nn.functional import avg_pool2d, cosine_similarity

from experiments.sequential_tasks import SETTINGS as OF_THE_COMMAND
from forgetting import learner as learners
from forgetting import networks
from forgetting.data import Dataset
from forgetting.errors import UserError
from forgetting.networks import Classifier, build, scale_images
from forgetting.rotation import rotation_loss
from forgetting.seeding import derived_seed
from forgetting.sequential import SequentialTasks
from forgetting.streams import one_vs_all

SETTINGS = {
    "method": "rotation",
    "seed": 0,
    "iterations_per_task": 4,
    "cycles": 2,
    "batch_size": 16,
    "width": 4,
    "lr": 1e-3,
    "adam_betas": (0.9, 0.999),
    "rotation_weight": 1.0,
    "rotated_images": 4,
    "head": "shared",
    "balanced": True,
    "spectral_norm": False,
    "eval_every": 2,
    "eval_images": 50,
    "probe_images": 60,
    "probe_features": 64,
}


def study(digits, **changes) -> SequentialTasks:
    return SequentialTasks(
        digits, torch.device("cpu"), contextlib.nullcontext, **{**SETTINGS, **changes}
    )


def losses(learner, steps):
    return [{k: v.item() for k, v in learner.step().items()} for _ in range(steps)]


def weights(learner):
    return torch.cat([p.detach().flatten() for p in learner.net.parameters()])


@pytest.mark.parametrize("method", ["vanilla", "rotation", "augment"])
def test_one_seed_repeats_and_two_differ(digits, method):
    first, again = losses(study(digits, method=method), 6), losses(study(digits, method=method), 6)
    assert first == again
    assert first != losses(study(digits, method=method, seed=1), 6)


def test_every_arm_starts_alike_and_sees_the_same_images(digits):
    arms = [study(digits, method=m) for m in ("vanilla", "rotation", "augment")]
    assert all(torch.equal(weights(arm), weights(arms[0])) for arm in arms)
    for _ in range(3):
        drawn = []
        for arm in arms:
            arm.step()
            drawn.append(arm.stream.draws.get_state())
        assert torch.equal(drawn[0], drawn[1]) and torch.equal(drawn[0], drawn[2])
    rotation, augment = (arm.learner.methods[arm.arm.name].draws for arm in arms[1:])
    assert torch.equal(rotation.get_state(), augment.get_state())  # both turn the same images


def first_batch(digits):
    """Images (16, 3, 8, 8) uint8 and targets (16,) of the first iteration, and the 4 to turn."""
    drawn = study(digits)._draw()
    indices = drawn["stream"]["rows"]
    targets = (digits.train_labels[indices] == 0).float()
    return digits.train_images[indices], targets, drawn["methods"]["rotation"]["rows"]


def test_the_rotation_loss_is_of_upright_and_turned_images(digits):
    learner = study(digits)
    net = build(derived_seed(0, "weights"), Classifier, size=8, width=4, binary_outputs=1)
    images, targets, chosen = first_batch(digits)
    turned = torch.cat([torch.rot90(images[chosen], k, (2, 3)) for k in range(4)])
    with torch.no_grad():
        logits = net.binary_head(net(scale_images(images)))[:, 0]
        rotation_logits = net.rotation_head(net(scale_images(turned)))
    got = learner.step()
    binary = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets)
    labels = torch.tensor([k for k in range(4) for _ in range(4)])
    assert got["loss/task"].item() == pytest.approx(binary.item(), rel=1e-5)
    assert got["loss/rotation"].item() == pytest.approx(
        rotation_loss(rotation_logits, labels).item(), rel=1e-5
    )


def test_rotated_images_are_positives_and_negatives_alike(digits):
    learner = study(digits, batch_size=64, rotated_images=16, iterations_per_task=10**6)
    positives = 0
    for step in range(20):
        drawn = learner._draw()
        chosen = drawn["methods"]["rotation"]["rows"]
        positives += int(learner.stream.batch(drawn["stream"], step).targets[chosen].sum())
    assert 0.38 < positives / (20 * 16) < 0.62  # 4 standard deviations


def test_the_control_puts_the_turned_images_into_the_binary_loss(digits):
    augmented = study(digits, method="augment")
    net = build(derived_seed(0, "weights"), Classifier, size=8, width=4, binary_outputs=1)
    with torch.no_grad():
        net.binary_head.weight.mul_(50)  # a wrong target must show in the loss
        augmented.net.binary_head.weight.mul_(50)
    images, targets, chosen = first_batch(digits)
    turned = [torch.rot90(images[i], k, (1, 2)) for k in (1, 2, 3) for i in chosen]
    targets = torch.cat([targets, *[targets[i][None] for k in (1, 2, 3) for i in chosen]])
    with torch.no_grad():
        features = net(scale_images(torch.cat([images, torch.stack(turned)])))
        logits = net.binary_head(features)[:, 0]
    got = augmented.step()
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, targets)
    assert got.keys() == {"loss/task"}
    assert got["loss/task"].item() == pytest.approx(expected.item(), rel=1e-5)
    # No gradient ever reaches the rotation head.
    assert torch.equal(augmented.net.rotation_head.weight, study(digits).net.rotation_head.weight)


def test_evaluations_between_task_ends_are_on_the_fixed_share(digits):
    learner = study(digits)
    seen = []
    forward = learner._read
    learner._read = lambda images, *rest, **options: (
        seen.append(len(images)) or forward(images, *rest, **options)
    )
    for learner.position, expected in ((0, 364), (1, 50), (4, 364)):
        seen.clear()
        learner.evaluate()
        assert seen[0] == expected


@pytest.mark.parametrize("spectral_norm", [False, True])
def test_evaluating_changes_nothing(digits, spectral_norm):
    probed, left_alone = (study(digits, spectral_norm=spectral_norm) for _ in range(2))
    for _ in range(8):
        probed.step(), left_alone.step()
        probed.evaluate()
    for name, value in left_alone.net.state_dict().items():
        assert torch.equal(value, probed.net.state_dict()[name]), name


def due(learner) -> list[int]:
    """After which of 600 updates it is evaluated."""
    found = []
    for learner.position in range(601):
        if learner.evaluation_due():
            found.append(learner.position)
    return found


def test_evaluations_after_a_switch_can_be_left_out(digits):
    settings = {"iterations_per_task": 300, "eval_every": 250}
    assert due(study(digits, **settings, eval_after_switch=False)) == [0, 250, 300, 550, 600]


def test_what_is_evaluated_and_when(digits):
    learner = study(digits, iterations_per_task=300, eval_every=250)
    assert due(learner) == [0, 1, 10, 20, 50, 100, 250, 300, 301, 310, 320, 350, 400, 550, 600]
    learner.position = 300
    assert learner.current_task() == 0
    values = learner.evaluate()
    assert values["accuracy/current"] == values["accuracy/task_0"]
    assert {f"accuracy/task_{c}" for c in range(10)} <= values.keys()
    assert 0 < values["probe/final"] < 1
    learner.position = 301
    assert learner.current_task() == 1
    assert "probe/final" not in learner.evaluate()


@pytest.mark.parametrize("method", ["vanilla", "rotation", "augment"])
def test_a_restored_study_goes_on_to_the_bit(digits, method):
    through = study(digits, method=method, head="per_task", spectral_norm=True)
    losses(through, 3)
    state = copy.deepcopy(through.state_dict())
    restored = study(digits, method=method, head="per_task", spectral_norm=True, seed=5)
    restored.load_state_dict(state)
    assert losses(restored, 4) == losses(through, 4)
    assert restored.evaluate() == through.evaluate()


def test_a_head_a_task_leaves_the_other_heads_alone(digits):
    learner = study(digits, head="per_task", method="vanilla")
    before = learner.net.binary_head.weight.detach().clone()
    learner.step()
    changed = (learner.net.binary_head.weight != before).any(1)
    assert changed.tolist() == [True] + [False] * 9


def test_tasks_come_in_the_order_of_the_stream(digits):
    order = [3, 1, 0, 2, 9, 8, 7, 6, 5, 4]
    learner = study(digits, order=order)
    assert learner.info["task_order"] == order
    learner.position = 1
    assert learner.current_task() == 3
    values = learner.evaluate()
    assert values["accuracy/current"] == values["accuracy/task_3"]
    seeded = [study(digits, order="seeded", seed=seed).info["task_order"] for seed in (0, 0, 1)]
    assert seeded[0] == seeded[1] != seeded[2]


@pytest.mark.parametrize("switch", ["gradual", "none"])
def test_other_switches_train_and_go_on_to_the_bit(digits, switch):
    changes = {"head": "per_task", "switch": switch, "blend": 1.0}
    through, abrupt = study(digits, **changes), study(digits, head="per_task")
    assert losses(through, 6) != losses(abrupt, 6)
    restored = study(digits, **changes, seed=3)
    restored.load_state_dict(copy.deepcopy(through.state_dict()))
    assert losses(restored, 4) == losses(through, 4)
    values = restored.evaluate()
    assert values["accuracy/current"] == values["accuracy/task_2"]  # as in the moving stream


def test_without_switches_one_output_is_not_enough(digits):
    with pytest.raises(UserError, match=r"stream.switch: none needs head=per_task: with one") as e:
        study(digits, switch="none")
    assert "\n" not in str(e.value)


def two_classes(digits) -> Dataset:
    def keep(labels):
        return labels < 2

    train, test = keep(digits.train_labels), keep(digits.test_labels)
    return Dataset(
        "two digits",
        ("0", "1"),
        digits.train_images[train],
        digits.train_labels[train],
        digits.test_images[test],
        digits.test_labels[test],
        "x",
    )


@pytest.mark.parametrize("head", ["shared", "per_task"])
def test_two_classes_are_enough(digits, head):
    learner = study(two_classes(digits), head=head)
    assert learner.total_steps == 2 * 2 * 4
    logged = {}
    for step in range(17):
        if step:
            learner.step()
        if learner.evaluation_due():
            for name, value in learner.evaluate().items():
                steps, values = logged.setdefault(name, ([], []))
                steps.append(step), values.append(value)
    result = learner.summary({k: (np.array(s), np.array(v)) for k, (s, v) in logged.items()})
    assert ("forgetting/cycle_2" in result) == (head == "per_task")
    assert "forward_transfer/cycle_2" not in result
    assert all(-1 <= value <= 1 for value in result.values())
    probe = logged["probe/final"][1]
    assert result["probe_first_cycle"] == pytest.approx(np.mean(probe[:2]))
    assert result["probe_last_cycle"] == pytest.approx(np.mean(probe[2:]))
    assert result["probe_end"] == probe[3]
    if head == "per_task":
        # Ends of tasks are at 4, 8 (cycle 1), 12 and 16 (cycle 2).
        steps, old = logged["accuracy/task_0"]
        at = dict(zip(steps, old, strict=True))
        assert result["forgetting/cycle_2"] == pytest.approx(at[12] - at[16])
        assert result["backward_transfer/cycle_2"] == pytest.approx(at[16] - at[12])
        steps, later = logged["accuracy/task_1"]
        at = dict(zip(steps, later, strict=True))
        assert result["forward_transfer/cycle_1"] == pytest.approx(at[4] - at[0])


def test_the_settings_of_the_test_are_settings_of_the_study():
    assert SETTINGS.keys() <= OF_THE_COMMAND.keys()


@pytest.mark.parametrize("method", ["vanilla", "rotation"])
def test_bf16_is_fp32_within_its_precision(digits, method):
    """Losses within 2 %, gradients of a cosine of 0.99 and more: bf16 keeps 8 bits."""
    found = []
    for precision in (False, True):
        learner = study(digits, method=method, width=16, batch_size=64)
        learner.learner.autocast = partial(torch.autocast, "cpu", torch.bfloat16, enabled=precision)
        (values,) = losses(learner, 1)
        gradients = [p.grad.flatten() for p in learner.net.parameters() if p.grad is not None]
        found.append((values, torch.cat(gradients)))
    (plain, plain_gradients), (fast, fast_gradients) = found
    assert fast == pytest.approx(plain, rel=0.02) and fast != plain
    assert cosine_similarity(fast_gradients, plain_gradients, dim=0) > 0.99


def test_the_fast_path_learns_as_the_plain_one_within_seed_noise(digits, monkeypatch):
    """A whole run a seed: convolution and pooling in one, channels_last and fused Adam, against
    one after the other, contiguous and plain."""

    def curve(seed, plain):
        learner = study(digits, seed=seed, cycles=1, iterations_per_task=20, width=8, batch_size=32)
        if plain:
            learner.net.to(memory_format=torch.contiguous_format)
            plain_adam = torch.optim.Adam(learner.net.parameters(), lr=SETTINGS["lr"])
            learner.learner.optimisers["classifier"] = plain_adam
        accuracies = []
        for _ in range(learner.total_steps):
            learner.step()
            if learner.position % 10 == 0:
                accuracies.append(learner.evaluate()["accuracy/current"])
        return np.array(accuracies)

    seeds = range(3)
    fast = np.array([curve(seed, plain=False) for seed in seeds])
    monkeypatch.setattr(networks, "conv_then_average_pool", lambda x, conv: avg_pool2d(conv(x), 2))
    monkeypatch.setattr(one_vs_all, "scale_images", lambda images: images.float() / 127.5 - 1)
    monkeypatch.setattr(learners, "scale_images", lambda images: images.float() / 127.5 - 1)
    plain = np.array([curve(seed, plain=True) for seed in seeds])
    noise = plain.std(0, ddof=1) / len(seeds) ** 0.5
    assert plain.mean() > 0.55  # it learns
    assert abs(fast.mean() - plain.mean()) < plain.mean(1).std(ddof=1)
    assert (np.abs(fast.mean(0) - plain.mean(0)) < 3 * noise + 0.02).all()
