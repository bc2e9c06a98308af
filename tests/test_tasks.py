import pytest
import torch

from forgetting.seeding import generator
from forgetting.tasks import OneVsAllStream


def stream(labels, classes, batch_size=64, balanced=True, seed=0):
    return OneVsAllStream(labels, classes, batch_size, 5, balanced, generator(seed, "stream"))


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_order_and_balance(classes):
    labels = torch.arange(1000) % classes
    batches = stream(labels, classes)
    for step in range(5 * classes * 2):
        task = batches.task(step)
        assert task == step // 5 % classes
        indices, targets = batches.batch(step)
        assert torch.equal(labels[indices] == task, targets.bool())
        assert targets.sum() == 32 and len(targets) == 64


def test_an_odd_batch_has_one_more_of_the_others():
    _, targets = stream(torch.arange(100) % 10, 10, batch_size=7).batch(0)
    assert targets.sum() == 3 and len(targets) == 7


def test_negatives_come_from_every_other_class():
    labels = torch.arange(1000) % 10
    batches = stream(labels, 10, batch_size=2000)
    indices, targets = batches.batch(0)
    counts = torch.bincount(labels[indices[targets == 0]], minlength=10)
    assert counts[0] == 0
    assert (counts[1:] - 1000 / 9).abs().max() < 50  # 5 standard deviations


def test_the_plain_stream_is_one_to_nine():
    batches = stream(torch.arange(1000) % 10, 10, batch_size=5000, balanced=False)
    _, targets = batches.batch(0)
    assert abs(targets.mean().item() - 0.1) < 0.02


def test_one_seed_one_stream():
    labels = torch.arange(1000) % 10
    first, again, other = (stream(labels, 10, seed=s).batch(0)[0] for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_purposes_of_one_seed_are_independent():
    draws = {p: torch.rand(3, generator=generator(0, p)).tolist() for p in ("stream", "rotation")}
    assert draws["stream"] != draws["rotation"]
