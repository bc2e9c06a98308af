import math

import pytest
import torch

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
