import errno
import pickle
import socket
import subprocess
import sys
import time

import conftest
import numpy as np
import pytest
import torch
from PIL import Image

from forgetting import data
from forgetting.errors import UserError
from forgetting.mapped import MappedImages


@pytest.fixture
def folder(tmp_path, digits):
    """Real digits 0 to 2 as image files: greyscale and colour, of several shapes."""
    for split, images, labels in (
        ("train", digits.train_images, digits.train_labels),
        ("test", digits.test_images, digits.test_labels),
    ):
        for c in range(3):
            (tmp_path / split / f"digit {c}").mkdir(parents=True)
            for i, image in enumerate(images[labels == c][:4]):
                picture = Image.fromarray(image.permute(1, 2, 0).numpy())
                picture = picture.resize([(8, 8), (20, 30), (40, 16), (9, 9)][i])
                picture = picture.convert("L" if i % 2 else "RGB")
                picture.save(tmp_path / split / f"digit {c}" / f"{i}.png")
    return tmp_path


def test_digits_are_whole_and_split_evenly(digits):
    assert len(digits.train_images) + len(digits.test_images) == 1797
    assert digits.train_images.shape[1:] == (3, 8, 8)
    assert digits.train_images.dtype == torch.uint8 and digits.train_images.max() == 255
    assert torch.bincount(digits.test_labels).min() >= 34
    assert data.load("digits", "x", size=16).train_images.shape[1:] == (3, 16, 16)


def test_balanced_test_images_are_fixed_and_balanced(digits):
    chosen = digits.balanced_test_subset(200)
    assert torch.bincount(digits.test_labels[chosen]).tolist() == [20] * 10
    assert torch.equal(chosen, digits.balanced_test_subset(200))
    assert len(chosen.unique()) == 200
    smallest = torch.bincount(digits.test_labels).min()
    assert len(digits.balanced_test_subset(10**6)) == 10 * smallest


def test_one_class_folder_counts_as_unlabelled(folder):
    for split in ("train", "test"):
        for c in (1, 2):
            (folder / split / f"digit {c}").rename(folder / f"{split} {c}")
    assert data.load("image_folder", folder, 8, least_classes=1).classes == ("digit 0",)
    with pytest.raises(UserError, match="1 class folders; it should hold 2 or more"):
        data.load("image_folder", folder, 8)


def test_probe_images_have_every_class(digits):
    assert torch.equal(digits.training_subset(100), digits.training_subset(1000)[:100])
    assert len(digits.training_subset(None)) == 1433
    with pytest.raises(UserError, match="probe_images: it must be more: none of the 5"):
        digits.training_subset(5)


def test_a_folder_of_any_images_becomes_one_array(folder):
    images = data.load("image_folder", folder, size=16)
    assert images.classes == ("digit 0", "digit 1", "digit 2")
    assert images.train_images.shape == (12, 3, 16, 16)
    assert images.train_images.dtype == torch.uint8
    assert images.train_labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert images.label == folder.name
    grey = images.train_images[1]
    assert torch.equal(grey[0], grey[1])


def test_sixteen_bits_of_grey_become_eight(folder):
    ramp = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(ramp).save(folder / "train" / "digit 0" / "0.png")
    grey = data.load("image_folder", folder, size=8).train_images[0]
    assert torch.equal(grey[1], torch.from_numpy((ramp / 257).round().astype(np.uint8)))


def test_an_image_of_the_right_size_keeps_every_pixel(folder, digits):
    images = data.load("image_folder", folder, size=8)
    original = digits.train_images[digits.train_labels == 1][0]
    assert torch.equal(images.train_images[4], original)


def test_a_second_start_reads_the_cache_and_a_changed_folder_does_not(folder):
    first = data.load("image_folder", folder, size=8)
    cache = folder / ".cache-8px.npy"
    marked = np.load(cache)
    marked[0] = 77
    np.save(cache, marked)
    assert (data.load("image_folder", folder, size=8).train_images[0] == 77).all()
    Image.new("RGB", (8, 8), (9, 9, 9)).save(folder / "train" / "digit 0" / "0.png")
    changed = data.load("image_folder", folder, size=8)
    assert (changed.train_images[0] == 9).all()
    assert changed.fingerprint != first.fingerprint


@pytest.mark.parametrize("damage", [b"", b"garbage", None])
def test_a_damaged_cache_is_made_anew(folder, damage):
    first = data.load("image_folder", folder, size=8)
    cache = folder / ".cache-8px.npy"
    cache.write_bytes(cache.read_bytes()[:-50] if damage is None else damage)
    assert torch.equal(data.load("image_folder", folder, size=8).train_images, first.train_images)


def test_folders_that_will_not_do(folder, tmp_path_factory):
    def message(root):
        with pytest.raises(UserError) as error:
            data.load("image_folder", root)
        text = str(error.value)
        assert text.startswith("dataset.root: ") and "\n" not in text
        return text

    empty = tmp_path_factory.mktemp("empty")
    assert "no folder" in message(empty / "missing")
    assert "no folder 'train'" in message(empty)
    (empty / "train").mkdir()
    assert "0 class folders" in message(empty)
    (empty / "train" / "only").mkdir()
    assert "1 class folders" in message(empty)

    broken = folder / "train" / "digit 1" / "0.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    assert "0.png is not a whole image" in message(folder)
    broken.write_bytes(whole)
    (folder / "train" / "digit 1" / "9.png").symlink_to("nowhere.png")
    assert "cannot read" in message(folder) and "9.png" in message(folder)
    (folder / "train" / "digit 1" / "9.png").unlink()
    (folder / "test" / "digit 2").rename(folder / "test" / "digit 3")
    assert "'digit 2' is in only one" in message(folder)
    (folder / "test" / "digit 3").rename(folder / "test" / "digit 2")
    for image in (folder / "test" / "digit 2").iterdir():
        image.unlink()
    assert "no images in" in message(folder)


def test_cifar10_as_torchvision_stores_it(tmp_path, monkeypatch):
    base = tmp_path / "cifar-10-batches-py"
    base.mkdir()
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (20, 3072), dtype=np.uint8)
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        batch = {"data": pixels, "labels": [i % 10 for i in range(20)]}
        (base / name).write_bytes(pickle.dumps(batch))
    names = [f"class {c}" for c in range(10)]
    (base / "batches.meta").write_bytes(pickle.dumps({"label_names": names}))
    # Made-up files have other checksums than the real ones.
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    images = data.load("cifar10", tmp_path)
    assert images.label == "CIFAR-10" and images.classes == tuple(names)
    assert images.train_images.shape == (100, 3, 32, 32)
    assert torch.equal(images.test_images[3].flatten(), torch.from_numpy(pixels[3]))
    assert data.choose(tmp_path)[0] == "cifar10"


def test_a_network_that_never_answers_does_not_hang_the_start(tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}/x"
        monkeypatch.setattr("torchvision.datasets.CIFAR10.url", address)
        monkeypatch.setattr(data, "SECONDS_TO_LOOK_ONLINE", 1.5)
        start = time.monotonic()
        name, why = data.choose(tmp_path)
        assert time.monotonic() - start < 3
    (tmp_path / "cifar-10-batches-py").mkdir()  # there, but nothing in it
    assert data.choose(tmp_path)[0] == "digits"
    assert name == "digits" and "cannot be downloaded" in why
    with pytest.raises(UserError, match=r"dataset\.name: CIFAR-10 is not in"):
        data.load("cifar10", tmp_path)


MEMORY_SCRIPT = """
import re, sys
from pathlib import Path
import torch
from PIL import Image
from forgetting import data

def kilobytes(what):
    return int(re.search(what + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

torch.set_num_threads(1)
data.load("image_folder", sys.argv[1], 8)  # what this imports is no image
Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
before = kilobytes("VmRSS")
for _ in range(2):  # the second time from the cache
    images = data.load("image_folder", sys.argv[1], 256, memory=int(sys.argv[2]))
    batches = torch.randperm(len(images.train_images)).split(16)
    total = sum(images.train_images[chosen].numpy().sum(dtype=int) for chosen in batches)
print(total, (kilobytes("VmHWM") - before) // 1000)
"""


def test_images_beyond_the_budget_are_read_as_they_are_needed(folder, digits):
    chosen = digits.train_images[digits.train_labels == 0]
    for i in range(1056):
        picture = Image.fromarray(chosen[i % len(chosen)].permute(1, 2, 0).numpy())
        picture.save(folder / "train" / "digit 0" / f"more-{i}.bmp")
    found = {}
    for budget in (50_000_000, 10**9):
        run = [sys.executable, "-c", MEMORY_SCRIPT, str(folder), str(budget)]
        done = subprocess.run(run, cwd=conftest.PROJECT, capture_output=True, text=True, check=True)
        found[budget] = [int(word) for word in done.stdout.split()]
    assert (folder / ".cache-256px.npy").stat().st_size > 200_000_000
    (total, mapped), (whole_total, whole) = found[50_000_000], found[10**9]
    assert total == whole_total
    assert mapped < 50 and whole > 200  # megabytes at the peak


def test_mapped_images_are_those_in_memory(folder):
    whole = data.load("image_folder", folder, 16)
    mapped = data.load("image_folder", folder, 16, memory=1000)
    assert mapped.fingerprint == whole.fingerprint
    for now, then in (
        (mapped.train_images, whole.train_images),
        (mapped.test_images, whole.test_images),
    ):
        assert isinstance(now, MappedImages) and now.shape == then.shape
        assert torch.equal(torch.cat(list(now.split(5))), then)
        some = torch.tensor([[3, 0], [11, 3]])
        assert torch.equal(now[some], then[some])
        assert torch.equal(now[2:4], then[2:4]) and torch.equal(now[7], then[7])
        with pytest.raises(IndexError):
            now[torch.tensor([12])]


def test_images_beyond_the_budget_need_room_for_their_cache(folder, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    before = data.load("image_folder", folder, 8).fingerprint
    monkeypatch.setattr("os.replace", full)
    for file in folder.glob(".cache*"):
        file.unlink()
    with pytest.raises(UserError, match=r"do not fit in memory, and .* cannot take their cache"):
        data.load("image_folder", folder, 8, memory=1000)
    assert data.load("image_folder", folder, 8).fingerprint == before
    assert not list(folder.glob(".cache*"))
