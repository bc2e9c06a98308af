"""Rotations, and the methods that show turned images: with shuffled labels, or as more images."""

import math

import pytest
import torch
from test_gan import study as gan
from test_methods import STUDIES, make
from test_replay import old_rows

from forgetting.rotation import rotate, rotation_labels, rotation_loss, turned_copies

LAYOUTS = [torch.contiguous_format, torch.channels_last]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("turns", range(4))
def test_rotation_moves_every_pixel_counter_clockwise(turns, layout):
    images = torch.arange(2 * 3 * 5 * 5).reshape(2, 3, 5, 5).float()
    images = images.contiguous(memory_format=layout)
    expected = images.clone()
    for _ in range(turns):  # new[row, column] = old[column, last - row]
        old = expected
        expected = torch.stack(
            [torch.stack([old[:, :, c, 4 - r] for c in range(5)], -1) for r in range(5)], 2
        )
    assert torch.equal(rotate(images, turns), expected)
    assert torch.equal(rotate(images, turns), torch.rot90(images, turns, (2, 3)))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_labels_name_the_turns_of_the_copies(layout):
    images = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8)
    images = images.contiguous(memory_format=layout)
    batch = torch.cat([images, turned_copies(images)])
    labels = rotation_labels(3)
    assert labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    for i, turns in enumerate(labels.tolist()):
        assert torch.equal(batch[i], torch.rot90(images[i % 3], turns, (1, 2)))


def test_loss_against_a_value_by_hand():
    # Logits (ln 1, ln 2, ln 3, ln 4) are probabilities 0.1, 0.2, 0.3, 0.4.
    logits = torch.log(torch.tensor([[1.0, 2, 3, 4], [1, 2, 3, 4]]))
    loss = rotation_loss(logits, torch.tensor([0, 3]))
    assert loss.item() == pytest.approx(-(math.log(0.1) + math.log(0.4)) / 2, rel=1e-6)


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
