"""Knowledge planted before the task moves, and the reference of what can be learnt."""

import copy

import numpy as np
import pytest
import torch
from test_fakes import opponents
from test_gan import study as gan
from test_sequential import study as sequential

from forgetting import probes
from forgetting.errors import UserError
from forgetting.methods import parse
from gan.models import parse_model


def weights(learner):
    return torch.cat([p.detach().flatten() for p in learner.net.parameters()])


def losses(learner, steps):
    return [{k: v.item() for k, v in learner.step().items()} for _ in range(steps)]


@pytest.mark.parametrize("study", [sequential, gan], ids=["sequential", "gan"])
def test_nothing_planted_changes_no_bit(digits, study):
    plain, none_planted = study(digits), study(digits, plant_updates=0)
    assert losses(plain, 4) == losses(none_planted, 4)
    assert plain.evaluate() == none_planted.evaluate()


def test_all_arms_of_a_seed_begin_from_one_planted_net(digits):
    arms = [sequential(digits, method=m, plant_updates=5) for m in ("vanilla", "rotation+replay")]
    assert torch.equal(weights(arms[0]), weights(arms[1]))
    plain = sequential(digits, method="vanilla")
    assert not torch.equal(weights(arms[0]), weights(plain))
    for head in ("binary_head", "rotation_head"):  # nothing was planted in them
        for name, value in getattr(arms[0].net, head).state_dict().items():
            assert torch.equal(value, getattr(plain.net, head).state_dict()[name])
    assert torch.equal(arms[0].stream.draws.get_state(), plain.stream.draws.get_state())
    other = sequential(digits, method="vanilla", plant_updates=5, seed=1)
    assert not torch.equal(weights(other), weights(arms[0]))


@pytest.mark.parametrize("study", [sequential, gan], ids=["sequential", "gan"])
def test_what_is_planted_is_seen_and_goes_on_to_the_bit(digits, study):
    widths = {"width": 16} if study is sequential else {"discriminator_width": 16}
    changes = {"plant_updates": 60, "lr": 5e-3, "probe_images": 1000, **widths}
    if study is gan:
        changes |= {"spectral_norm": False, "regularizer": "gradient_penalty"}
    planted = study(digits, **changes)
    start = planted.evaluate()["probe/final_layer"]
    untrained = planted.summary({})["probe_final_layer_untrained"]
    assert start > untrained + 0.1
    bare = study(digits, **{**changes, "plant_updates": 0})
    assert bare.evaluate()["probe/final_layer"] == untrained
    curve = {"probe/final_layer": (np.array([0, 4]), np.array([0.3, 0.5]))}
    assert "probe_final_layer_untrained" not in bare.summary({})
    # What a planted curve begins at is not the untrained net.
    assert "taught" in bare.summary(curve) and "taught" not in planted.summary(curve)
    losses(planted, 2)
    restored = study(digits, **changes, fresh=False)
    restored.load_state_dict(copy.deepcopy(planted.state_dict()))
    assert losses(restored, 2) == losses(planted, 2)


def test_a_planted_gans_blocks_are_probed_with_the_c_of_its_twins(digits, monkeypatch):
    """Chosen on the bare net's features, since C = 1e-4 and 1 favour one net or the other."""
    chosen_on = []
    monkeypatch.setattr(probes, "choose_c", lambda maps, _: chosen_on.append(maps.clone()) or 0.01)
    for updates in (0, 5):
        learner = gan(digits, plant_updates=updates)
        learner.evaluate()
        assert learner.probe_c == [0.01] * len(learner.discriminator.backbone.blocks)
    half = len(chosen_on) // 2
    assert half > 1
    assert all(map(torch.equal, chosen_on[:half], chosen_on[half:]))


@pytest.mark.parametrize("study", [sequential, gan], ids=["sequential", "gan"])
def test_drift_changes_no_bit_and_goes_on_to_the_bit(digits, study):
    probed, left_alone = study(digits), study(digits)
    probed.evaluate()
    assert probed.artifacts().keys() & {"drift.csv"} == set()  # one probe has no other
    assert losses(probed, 4) == losses(left_alone, 4)
    restored = study(digits, fresh=False)
    state = copy.deepcopy(probed.state_dict())
    restored.load_state_dict(state)
    for learner in (probed, restored):
        losses(learner, learner.total_steps - learner.position)
        learner.evaluate()
        (row,) = learner.drift.rows
        assert (row["step"], row["earlier"]) == (learner.total_steps, 0) and 0 < row["cka"] < 1
        assert learner.artifacts()["drift.csv"].startswith(b"step,earlier,cka\n")
    assert restored.drift.rows == probed.drift.rows
    assert [name for name in state["parts"] if "features" in name] == ["features-0"]  # of then


def test_a_class_that_is_a_task_has_its_recall(digits):
    learner = sequential(digits, probe_images=1000)
    values = learner.evaluate()
    recalls = [values[f"probe/task_{c}"] for c in range(10)]
    counts = torch.bincount(digits.test_labels).double()
    assert values["probe/final_layer"] == pytest.approx(
        float((torch.tensor(recalls) * counts).sum() / counts.sum())
    )
    assert len(set(recalls)) > 3


def test_it_is_planted_before_recorded_opponents_too(digits, recording):
    planted = opponents(digits, recording, plant_updates=3)
    assert not torch.equal(weights(planted), weights(opponents(digits, recording)))


def test_the_supervised_reference_learns_the_digits(digits):
    learner = sequential(
        digits, method="supervised", batch_size=64, width=16, lr=3e-3, iterations_per_task=20,
        probe_images=1000,
    )  # fmt: skip
    (first, *_, last) = losses(learner, learner.total_steps)
    assert first.keys() == {"loss/supervised"} and last["loss/supervised"] < 0.3
    values = learner.evaluate()
    assert values.keys() == {"probe/final_layer"} and values["probe/final_layer"] > 0.95
    drawn = learner.stream.draw(0)
    batch = learner.stream.batch(drawn, 0)
    assert torch.equal(batch.labels, digits.train_labels[drawn["rows"]]) and len(batch.labels) == 64


def test_the_supervised_discriminator_learns_from_whole_batches(digits):
    learner = gan(digits, model="supervised", batch_size=16)
    assert learner.generator is None and "spectral" not in str(learner.learner.methods)
    seen = []
    head = learner.learner.methods["supervised"].head
    head.register_forward_hook(lambda module, features, logits: seen.append(tuple(logits.shape)))
    assert losses(learner, 1)[0].keys() == {"loss/supervised_d"}
    assert seen == [(16, 10)]


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (parse, "supervised+rotation"),
        (parse_model, "uncond+supervised"),
        (parse_model, "supervised+replay"),
    ],
)
def test_the_reference_stands_alone(read, text):
    with pytest.raises(UserError, match="supervised"):
        read(text)
