import errno
import hashlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import scipy.linalg
import torch

from forgetting.networks import scale_images
from gan import extractor as extractors
from gan import fidelity
from gan.extractor import SHIPPED, find_extractor, read_extractor
from gan.fidelity import choose_extractor, quality


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    # The nets here are so small that threads mostly wait for one another.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def no_inception(monkeypatch):
    monkeypatch.setattr(fidelity, "inception_available", lambda seconds=10: False)


@pytest.fixture(scope="module")
def extractor(digits):
    return find_extractor("digits", digits, "nowhere", "cpu")


def noisy(images: torch.Tensor, deviation: float) -> torch.Tensor:
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(1)) * deviation
    return (images.float() + noise).round().clamp(0, 255).to(torch.uint8)


def distance(samples, reference, extractor) -> float:
    (value,) = quality(samples, reference, extractor, "cpu").values()
    return value


def test_the_distance_is_the_closed_form_of_two_gaussians(digits, extractor):
    # Dowson & Landau 1982: |m1 - m2|^2 + tr(C1 + C2 - 2 (C1^1/2 C2 C1^1/2)^1/2)
    samples, reference = noisy(digits.train_images, 20), digits.test_images
    x, y = (extractor.net.features(images).double().numpy() for images in (samples, reference))
    root = scipy.linalg.sqrtm(np.cov(x.T))
    cross = scipy.linalg.sqrtm(root @ np.cov(y.T) @ root).real
    expected = np.sum((x.mean(0) - y.mean(0)) ** 2)
    expected += np.trace(np.cov(x.T) + np.cov(y.T) - 2 * cross)
    assert expected > 0.1
    assert distance(samples, reference, extractor) == pytest.approx(expected, rel=1e-4)


def test_the_distance_is_nought_for_equal_sets_and_grows_with_noise(digits, extractor):
    images = digits.test_images
    shuffled = images[torch.randperm(len(images), generator=torch.Generator().manual_seed(0))]
    distances = [distance(shuffled, images, extractor)]
    distances += [distance(noisy(images, level), images, extractor) for level in (10, 30, 90)]
    assert distances[0] == pytest.approx(0, abs=1e-4)
    assert distances[1] > 0.01
    assert distances == sorted(distances)


def test_images_of_one_class_only_are_far_away(digits, extractor):
    ones = digits.train_images[digits.train_labels == 1]
    near = distance(digits.train_images, digits.test_images, extractor)
    assert distance(ones, digits.test_images, extractor) > 10 * near


def test_the_distance_is_deterministic_and_draws_no_global_random_numbers(digits, extractor):
    samples = digits.train_images[:200]
    before = torch.get_rng_state()
    first, second = (distance(samples, digits.test_images, extractor) for _ in range(2))
    assert first == second
    assert torch.equal(torch.get_rng_state(), before)


def test_samples_as_floats_are_refused(digits, extractor):
    with pytest.raises(ValueError, match="samples: two or more images"):
        quality(digits.train_images / 255, digits.test_images, extractor, "cpu")


def test_without_inception_nothing_is_called_fid(digits, tmp_path, capfd):
    extractor = choose_extractor("digits", digits, tmp_path, "cpu")
    measures = quality(digits.train_images[:100], digits.test_images, extractor, "cpu")
    assert list(measures) == [extractor.metric] == ["fd_digits_cnn"]
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())


def test_with_inception_the_measures_have_their_usual_names(digits, monkeypatch, tmp_path):
    import torch_fidelity

    asked = {}

    def calculate_metrics(**options):
        asked.update(options)
        return {
            "frechet_inception_distance": 1.0,
            "kernel_inception_distance_mean": 2.0,
            "inception_score_mean": 3.0,
        }

    monkeypatch.setattr(torch_fidelity, "calculate_metrics", calculate_metrics)
    monkeypatch.setattr(fidelity, "inception_available", lambda: True)
    monkeypatch.setattr(fidelity, "_fetch_inception", lambda: True)
    extractor = choose_extractor("digits", digits, tmp_path, "cpu")
    measures = quality(digits.train_images[:100], digits.test_images, extractor, "cpu")
    assert extractor is None
    assert measures == {"fid": 1.0, "kid": 2.0, "inception_score": 3.0}
    assert "feature_extractor" not in asked  # torch-fidelity's own choice: Inception
    assert asked["kid_subset_size"] == 100


def test_a_download_that_fails_is_the_same_as_no_inception(digits, monkeypatch, tmp_path, capsys):
    def no_download(url, file, checksum, progress):
        assert checksum == "6726825d"
        raise TimeoutError("timed out")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_download)
    monkeypatch.setattr(fidelity, "inception_available", lambda: True)
    assert choose_extractor("digits", digits, tmp_path, "cpu").metric == "fd_digits_cnn"
    assert "could not be downloaded: timed out" in capsys.readouterr().out


def test_a_home_folder_that_cannot_be_read_is_the_same_as_no_inception(
    digits, monkeypatch, tmp_path, capsys
):
    """As for root, whom no permission stops here."""
    look, make = os.stat, os.mkdir

    def refused(real):
        def of(path, *arguments, **options):
            if str(path).startswith(str(tmp_path)):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return real(path, *arguments, **options)

        return of

    monkeypatch.undo()
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch/hub"))
    monkeypatch.setattr(os, "stat", refused(look))
    monkeypatch.setattr(os, "mkdir", refused(make))
    with pytest.raises(PermissionError):
        (tmp_path / "torch").stat()
    monkeypatch.setattr(fidelity, "answers", lambda *_: False)
    assert not fidelity.inception_available()
    monkeypatch.setattr(fidelity, "answers", lambda *_: True)
    assert choose_extractor("digits", digits, "nowhere", "cpu").metric == "fd_digits_cnn"
    assert "could not be downloaded: [Errno 13] Permission denied" in capsys.readouterr().out


def test_looking_for_inception_ends_in_time(monkeypatch, tmp_path):
    def no_answer(request, timeout):
        time.sleep(2)
        raise TimeoutError

    monkeypatch.undo()
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", no_answer)
    fidelity._inception_url()  # the import takes time, too
    started = time.monotonic()
    assert not fidelity.inception_available(seconds=0.1)
    assert time.monotonic() - started < 1
    weights = tmp_path / "checkpoints" / "weights-inception-2015-12-05-6726825d.pth"
    weights.parent.mkdir()
    weights.touch()
    assert fidelity.inception_available(seconds=0.1)


def test_the_shipped_extractors_are_small_good_and_named_by_their_hash():
    files = sorted(SHIPPED.glob("*.pt"))
    assert [file.stem for file in files] == ["cifar10", "cifar10_16px", "digits"]
    assert sum(file.stat().st_size for file in files) < 2_000_000
    for file in files:
        torch.load(file, weights_only=True)
        extractor = read_extractor(file)
        assert extractor.name == f"{file.stem}_cnn"
        assert extractor.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()[:16]
        assert extractor.test_accuracy > 0.7


def test_the_shipped_digits_extractor_is_as_accurate_as_it_says(digits, extractor):
    predicted = extractor.net(digits.test_images).argmax(1)
    accuracy = (predicted == digits.test_labels).double().mean().item()
    assert accuracy == pytest.approx(extractor.test_accuracy, abs=0.005)
    assert accuracy > 0.98


def test_other_data_gets_an_extractor_of_its_own_once(digits, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(extractors, "EPOCHS", 1)
    few = {"train_images": digits.train_images[:256], "train_labels": digits.train_labels[:256]}
    other = replace(digits, **few, fingerprint="other")
    cache = tmp_path / "new" / "folder"
    first = find_extractor("digits", other, cache, "cpu")
    assert (first.metric, first.fingerprint) == ("fd_digits_8px_cnn", "other")
    assert "training one, once" in capsys.readouterr().out

    # A shipped one of other images has the name of this.
    (shipped,) = (e for e in map(read_extractor, SHIPPED.glob("*.pt")) if "16px" in e.name)
    large = {"train_images": other.train_images.repeat(1, 1, 2, 2), "fingerprint": "another"}
    large["test_images"] = other.test_images.repeat(1, 1, 2, 2)
    name = shipped.name.removesuffix("_16px_cnn")
    own = find_extractor(name, replace(other, **large), tmp_path / "own", "cpu")
    assert own.metric == f"fd_{name}_16px_own_cnn" != shipped.metric

    with monkeypatch.context() as patch:
        patch.setattr(extractors, "train_extractor", None)  # must not be called
        assert find_extractor("digits", other, cache, "cpu").sha256 == first.sha256

    (file,) = cache.glob("*.pt")
    file.write_bytes(file.read_bytes()[:1000])  # damaged: trained again, to the same weights
    assert find_extractor("digits", other, cache, "cpu").sha256 == first.sha256
    assert read_extractor(file).sha256 == first.sha256


def test_runs_that_start_together_share_one_extractor(digits, monkeypatch, tmp_path):
    other = replace(digits, fingerprint="other")
    content = extractors.train_extractor(
        "x", replace(other, train_images=digits.train_images[:1]), 0
    )
    trained = []

    def slowly(*_, **__):
        trained.append(time.sleep(0.3))
        return content

    monkeypatch.setattr(extractors, "train_extractor", slowly)
    with ThreadPoolExecutor() as pool:
        found = list(pool.map(lambda _: find_extractor("x", other, tmp_path, "cpu"), range(3)))
    assert len({extractor.sha256 for extractor in found}) == len(trained) == 1


def test_a_cache_that_cannot_be_written_costs_only_time(digits, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(extractors, "EPOCHS", 1)
    other = replace(digits, train_images=digits.train_images[:128], fingerprint="other")
    (tmp_path / "file").touch()
    extractor = find_extractor("digits", other, tmp_path / "file", "cpu")
    assert extractor.fingerprint == "other"
    assert "not kept" in capsys.readouterr().out


@pytest.mark.parametrize("size,side", [(8, 4), (16, 4), (32, 4), (64, 4), (256, 4)])
def test_the_net_fits_every_size(size, side):
    net = extractors.FeatureNet(size, 3).eval()
    images = torch.zeros(1, 3, size, size, dtype=torch.uint8)
    assert net.layers(scale_images(images)).shape == (1, 64, side, side)
    assert net(images).shape == (1, 3)
