"""Recordings of a GAN's generators: what is kept of them, read back, and those that are shipped."""

import copy
import io

import numpy as np
import pytest
import torch
from test_fakes import GENERATORS, opponents
from test_gan import study as gan

from forgetting.errors import UserError
from gan import recordings
from gan.networks import Generator


def test_a_recording_has_the_generators_as_they_were(digits, recording):
    assert recording.steps == (2, 4, 6, 8) and recording.size == 8
    assert recording.fingerprint == digits.fingerprint
    again = gan(digits, model="uncond", steps=8, record_every=2, generator_width=4)
    train, held_out = recording.pools()
    assert train.shape == (GENERATORS, 5000, 3, 8, 8) and held_out.shape[1] == 1000
    for number in range(GENERATORS):
        again.step(), again.step()
        exact = recordings._fakes(copy.deepcopy(again.generator), number, 3, 1)
        kept = torch.cat([train[number], held_out[number]])
        assert (kept.short() - exact.short()).abs().max() <= 1
        assert exact.float().std() > 1
    assert not torch.equal(train[0], train[1])


def test_its_pools_are_the_same_for_every_seed_and_arm(digits, recording):
    arms = [
        opponents(digits, recording, seed=seed, method=method)
        for seed, method in ((0, "vanilla"), (1, "rotation+replay"))
    ]
    for pool in (lambda of: of.stream.fakes, lambda of: of.held_out.held_out):
        assert torch.equal(*map(pool, arms))
    assert torch.equal(*(arm.held_out.real for arm in arms))


def test_weights_stay_whole_where_halves_would_show():
    of_net = {"size": 8, "width": 4, "modulation": "plain", "classes": None}
    net = Generator(**of_net)
    exact = net.state_dict()
    kept, _ = recordings._halved(exact, of_net, 0, 0)
    assert {v.dtype for v in kept.values()} == {torch.float16, torch.int64}
    # Offsets that cancel, far beyond what a half resolves.
    with torch.no_grad():
        net.linear.bias += 3000.1
        net.blocks[0].norm1.norm.running_mean += 3000.1
        net.blocks[0].shortcut.bias -= net.blocks[0].shortcut.weight.sum((1, 2, 3)) * 3000.1
    kept, images = recordings._halved(net.state_dict(), of_net, 0, 0)
    assert kept["linear.bias"].dtype == torch.float32
    assert (images.short() - recordings._fakes(net, 0, 0, 1).short()).abs().max() <= 1


def test_colour_alone(digits, recording):
    train, held_out = recording.pools()
    both = torch.cat([train, held_out], 1)
    auc = recordings.colour_auc(digits, both)
    assert auc.shape == (GENERATORS, GENERATORS)
    assert np.allclose(auc, recording.colour)
    # Digits are grey; fakes with a cast are told by it, and digits themselves are not.
    red = both[:1].clone()
    red[:, :, 1:] = 0
    assert recordings.colour_auc(digits, red)[0, 0] > 0.99
    rows = torch.arange(6000) % len(digits.train_labels)
    assert 0.4 < recordings.colour_auc(digits, digits.train_images[rows][None])[0, 0] < 0.65


def damaged(content: bytes) -> bytes:
    return content[: len(content) // 2]


def of_version_9(content: bytes) -> bytes:
    changed = torch.load(io.BytesIO(content), weights_only=True) | {"version": 9}
    return saved(changed)


def with_a_tensor_less(content: bytes) -> bytes:
    changed = torch.load(io.BytesIO(content), weights_only=True)
    changed["nets"][1].popitem()
    return saved(changed)


def saved(content) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (damaged, "is no recording, or damaged"),
        (with_a_tensor_less, "is no recording, or damaged"),
        (of_version_9, "is of another version of this program (9, not 1)"),
        (lambda _: saved({"weights": torch.zeros(3)}), "is no recording, or damaged"),
        (lambda _: saved([1]), "is no recording, or damaged"),
        (lambda _: b"", "is no recording, or damaged"),
    ],
)
def test_a_damaged_or_foreign_file_is_one_line(recording_file, tmp_path, change, line):
    other = tmp_path / "other.pt"
    other.write_bytes(change(recording_file.read_bytes()))
    with pytest.raises(UserError, match=r"^stream\.recording: ") as error:
        recordings.read(str(other))
    assert line in str(error.value) and "\n" not in str(error.value)


def test_other_images_or_another_size_are_one_line(digits, recording):
    from dataclasses import replace

    recording.require(digits)
    with pytest.raises(
        UserError, match=r"tiny is of .* at 8 pixels, and this.*set dataset.size=8, or "
    ):
        images = digits.train_images.repeat_interleave(2, 2).repeat_interleave(2, 3)
        recording.require(replace(digits, train_images=images))
    with pytest.raises(UserError, match="tiny is of other images"):
        recording.require(replace(digits, fingerprint="another"))
    with pytest.raises(UserError, match="tiny has 1 generator, and a stream needs two"):
        replace(recording, nets=recording.nets[:1]).require(digits)


def test_what_is_shipped_is_whole_and_small():
    shipped = sorted(recordings.SHIPPED.glob("*.pt"))
    assert sum(path.stat().st_size for path in shipped) < 14e6
    for path in shipped:
        recording = recordings.read(path.stem)
        assert len(recording.nets) == 8 == len(recording.colour)
        model, _, seed = path.stem.partition("_")
        of = recording.settings
        assert path.stem == "digits" or (of["model"], str(of["seed"])) == (model, seed)
