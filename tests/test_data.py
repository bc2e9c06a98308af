import os
import pickle
import socket
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from forgetting import data
from forgetting.errors import UserError
from forgetting.settings import Setting, optional, path, text, validate


def test_digits_are_whole_and_split_evenly(digits):
    assert len(digits.train_images) + len(digits.test_images) == 1797
    assert digits.train_images.shape[1:] == (3, 8, 8)
    assert digits.train_images.dtype == torch.uint8 and digits.train_images.max() == 255
    assert torch.bincount(digits.test_labels).min() >= 34
    assert data.load("digits", "x", size=16).train_images.shape[1:] == (3, 16, 16)


def test_shipped_runs_are_of_these_digits(digits):
    """Runs pair by the fingerprint of their images."""
    found = [data.load("digits", "x", size).fingerprint for size in (8, 16, 32)]
    assert found == ["7da7f2ab2c4bfb27", "3e4c048187baa199", "094fe9374ad8546a"]


def test_balanced_test_images_are_fixed_and_balanced(digits):
    chosen = digits.balanced_test_subset(200)
    assert torch.bincount(digits.test_labels[chosen]).tolist() == [20] * 10
    assert torch.equal(chosen, digits.balanced_test_subset(200))
    assert len(chosen.unique()) == 200
    smallest = torch.bincount(digits.test_labels).min()
    assert len(digits.balanced_test_subset(10**6)) == 10 * smallest


def test_a_start_tells_what_it_took_and_what_it_left_out(digits):
    assert digits.account() == "1,433 training and 364 test images of 10 classes"
    some = replace(digits, notes=("left out: 1 .txt (as train/0/x.txt)", "and more"))
    assert some.account().endswith("10 classes; left out: 1 .txt (as train/0/x.txt); and more")


def test_a_rare_class_that_cuts_the_evaluation_is_named(digits):
    assert digits.cut_evaluation("eval_images", 300) is None
    few = 2
    kept = digits.test_labels != 3
    kept[(digits.test_labels == 3).nonzero()[:few, 0]] = True
    labels = digits.test_labels[kept]
    rare = replace(digits, test_images=digits.test_images[kept], test_labels=labels)
    assert len(rare.balanced_test_subset(300)) == 10 * few
    assert rare.cut_evaluation("eval_images", 300) == (
        f"eval_images: {10 * few} test images are used, not 300: equally many of each class, and "
        f"'3' has {few}"
    )


def test_too_few_test_images_are_refused(digits):
    digits.require_test_images(364, "a distance")
    with pytest.raises(UserError, match=r"dataset\.root: a distance needs 365 test images or more"):
        digits.require_test_images(365, "a distance")


def test_a_path_that_reads_as_a_number_is_to_be_quoted():
    table = {
        "dataset.root": Setting("data", path(), "where"),
        "dataset.label": Setting(None, optional(text(), "its name"), "what it is called"),
    }
    for key, value in (("dataset.root", 2024), ("dataset.label", 1.5), ("dataset.root", True)):
        with pytest.raises(UserError) as error:
            validate({key: value}, table)
        assert str(error.value).endswith(f"""quote it twice, as in "{key}='{value}'\"""")
    assert validate({"dataset.label": None}, table) == {"dataset.label": None}


def test_probe_images_have_every_class(digits):
    assert torch.equal(digits.training_subset(100), digits.training_subset(1000)[:100])
    assert len(digits.training_subset(None)) == 1433
    with pytest.raises(UserError, match="probe_images: it must be more: none of the 5"):
        digits.training_subset(5)


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


def test_cifar10_that_cannot_be_read_is_no_traceback(tmp_path, monkeypatch):
    (tmp_path / "cifar-10-batches-py").mkdir()
    for name in ("data_batch_1", "test_batch"):
        (tmp_path / "cifar-10-batches-py" / name).write_bytes(b"")
        (tmp_path / "cifar-10-batches-py" / name).chmod(0)
    root = os.geteuid() == 0  # who may read everything
    if root:
        monkeypatch.chdir(tmp_path)  # the folders above are root's alone
        tmp_path.chmod(0o755)
        data.choose("nowhere")  # what this imports is root's, too
        os.seteuid(65534)
    try:
        name, why = data.choose(".")
        assert name == "digits" and why == "CIFAR-10 in . cannot be read (Permission denied)"
        with pytest.raises(UserError, match=r"cannot read .*data_batch_1: Permission denied"):
            data.load("cifar10", ".")
    finally:
        if root:
            os.seteuid(0)


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
