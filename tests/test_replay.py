"""Replay: which rows are kept, and which of them are shown again, in both studies."""

import copy

import pytest
import torch
from test_gan import study as gan
from test_methods import make, steps
from test_sequential import study as sequential

from forgetting.errors import UserError
from forgetting.methods import parse
from gan.models import MODELS


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


def test_fresh_fakes_have_the_class_they_were_asked_for(digits):
    of_gan = gan(digits, model="cond").gan
    drawn = of_gan._draw_update("discriminator")
    batch = of_gan.discriminator_batch(drawn)
    asked = torch.cat([digits.train_labels[drawn["rows"]], drawn["labels"]])
    assert torch.equal(batch.labels, asked)
    assert not torch.equal(batch.labels[:16], batch.labels[16:])


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
