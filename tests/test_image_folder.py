"""Which files of a folder are taken, of which classes, in which order."""

import os
import re
import unicodedata

import pytest
import torch
from PIL import Image, features

from forgetting import data, image_folder
from forgetting.errors import UserError
from forgetting.image_folder import in_order


def test_one_class_folder_counts_as_unlabelled(folder):
    for split in ("train", "test"):
        for c in (1, 2):
            (folder / split / f"digit {c}").rename(folder / f"{split} {c}")
    assert data.load("image_folder", folder, 8, least_classes=1).classes == ("digit 0",)
    with pytest.raises(UserError, match="1 class folders; it should hold 2 or more"):
        data.load("image_folder", folder, 8)


def test_a_folder_of_any_images_becomes_one_array(folder):
    images = data.load("image_folder", folder, size=16)
    assert images.classes == ("digit 0", "digit 1", "digit 2")
    assert images.train_images.shape == (12, 3, 16, 16)
    assert images.train_images.dtype == torch.uint8
    assert images.train_labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert images.label == folder.name
    grey = images.train_images[1]
    assert torch.equal(grey[0], grey[1])


def test_an_image_of_the_right_size_keeps_every_pixel(folder, digits):
    images = data.load("image_folder", folder, size=8)
    original = digits.train_images[digits.train_labels == 1][0]
    assert torch.equal(images.train_images[4], original)


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
    second = folder / "train" / "digit 1" / "2.png"
    before = second.read_bytes()
    second.write_bytes(b"no image")
    assert re.search(
        r"0.png is not a whole image .*; nor can \S*digit 1/2.png be read", message(folder)
    )
    second.write_bytes(before)
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


def test_every_image_is_taken_or_told_of(folder, monkeypatch):
    """Other endings and folders within; what is no image; what systems leave."""
    images = folder / "train" / "digit 0"
    for ending in ("jfif", "JPE", "jp2", "qoi"):
        Image.new("RGB", (8, 8), "red").save(
            images / f"x.{ending}", "JPEG" if ending in ("jfif", "JPE") else None
        )
    (images / "day 1" / "x.png").mkdir(parents=True)  # a folder that is called like an image
    Image.new("RGB", (8, 8), (9, 9, 9)).save(images / "day 1" / "x.png" / "y.png")
    (images / "day 1" / "round").symlink_to("..")
    for name in ("notes.txt", "more.TXT", "README", ".hidden.png", "x.heic"):
        (images / name).write_bytes(b"no image")
    for name in ("._0.png", ".DS_Store", "Thumbs.db"):
        (images / name).write_bytes(b"no image")
    os.mkfifo(images / "pipe.png")
    (folder / "train" / "lost.png").write_bytes(b"")
    (folder / "train" / ".ipynb_checkpoints").mkdir()
    (folder / "train" / "__MACOSX").mkdir()
    found = data.load("image_folder", folder, 8)
    assert torch.bincount(found.train_labels).tolist() == [4 + 5, 4, 4]
    assert (found.train_images[found.train_labels == 0] == 9).flatten(1).all(1).sum() == 1
    assert found.classes == ("digit 0", "digit 1", "digit 2")
    left_out = {note.removeprefix("left out: ").partition(" (as ")[0] for note in found.notes}
    assert left_out == {
        *("1 .heic", "2 .txt", "2 hidden", "1 without an ending", "1 neither file nor folder"),
        *("1 outside the class folders", "1 folders that hold themselves"),
    }
    assert "left out: 1 .heic (as train/digit 0/x.heic)" in found.account()
    assert data.load("image_folder", folder, 8).account() == found.account()  # by the cache, too


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_avif_is_taken_where_pillow_has_it(folder, monkeypatch):
    Image.new("RGB", (8, 8), "red").save(folder / "test" / "digit 0" / "x.avif")
    assert len(data.load("image_folder", folder, 8).test_labels) == 13
    monkeypatch.setattr(image_folder.features, "check", lambda _: False)
    without = data.load("image_folder", folder, 8)
    assert len(without.test_labels) == 12 and "left out: 1 .avif" in without.account()


def test_what_became_of_the_images_is_told(folder):
    frames = [Image.new("RGB", (8, 8), c) for c in ("red", "blue")]
    frames[0].save(folder / "test" / "digit 0" / "x.gif", save_all=True, append_images=frames[1:])
    Image.new("I;16", (8, 8), 4095).save(folder / "train" / "digit 2" / "0.png")
    for _ in range(2):  # the second time from the cache
        found = data.load("image_folder", folder, 8)
        assert (found.train_images[8] == 255).all()
        assert found.notes == (
            "whole numbers of 16 bits: 0 is black and 4095 white",
            "of 1 files with several pictures, the first one is taken",
        )


def test_a_class_of_other_files_alone_says_which(folder):
    for image in (folder / "test" / "digit 1").iterdir():
        image.rename(image.with_suffix(".heic"))
    with pytest.raises(UserError, match=r"no images in .*test/digit 1 \(\.heic alone\)"):
        data.load("image_folder", folder)


@pytest.mark.parametrize(
    ("names", "order"),
    [
        (["0", "1", "10", "2"], ["0", "1", "2", "10"]),
        (["-1", "-10", "0", "0.5", "0.25"], ["-10", "-1", "0", "0.25", "0.5"]),
        (["class10", "class9", "class_1"], ["class9", "class10", "class_1"]),
        (["b", "a", "B", "é", "1"], ["1", "B", "a", "b", "é"]),
        (["01", "1", "002"], ["01", "1", "002"]),
        (["truck", "ship", "automobile", "airplane"], ["airplane", "automobile", "ship", "truck"]),
    ],
)
def test_classes_come_as_people_count(names, order):
    assert in_order(names) == order


def test_a_label_is_the_number_that_its_folder_is_named(folder):
    for split in ("train", "test"):
        for c in range(3):
            (folder / split / f"digit {c}").rename(folder / split / str((0, 2, 10)[c]))
        (folder / split / "1").mkdir()
        Image.new("RGB", (8, 8), (1, 1, 1)).save(folder / split / "1" / "x.png")
    found = data.load("image_folder", folder, 8)
    assert found.classes == ("0", "1", "2", "10")
    assert (found.train_images[found.train_labels == 1] == 1).all()


def test_names_in_two_unicode_forms(folder):
    joined, apart = (unicodedata.normalize(form, "Kätzchen") for form in ("NFC", "NFD"))
    (folder / "train" / "digit 0").rename(folder / "train" / joined)
    (folder / "test" / "digit 0").rename(folder / "test" / apart)
    assert data.load("image_folder", folder, 8).classes == ("Kätzchen", "digit 1", "digit 2")
    (folder / "test" / "digit 1").rename(folder / "test" / joined)
    with pytest.raises(UserError, match=r"'Ka\\u0308tzchen' and 'K\\xe4tzchen' are one name"):
        data.load("image_folder", folder, 8)


def test_names_that_no_text_can_hold_are_escaped(folder):
    for split in ("train", "test"):
        os.rename(folder / split / "digit 2", os.fsencode(folder / split) + b"/caf\xe9\n")
    found = data.load("image_folder", folder, 8)
    assert found.classes == (r"caf\xe9\n", "digit 0", "digit 1")
    found.account().encode()
    os.rename(os.fsencode(folder / "test") + b"/caf\xe9\n", folder / "test" / "other")
    with pytest.raises(UserError, match=r"class 'caf\\xe9\\n' is in only one of"):
        data.load("image_folder", folder, 8)


def test_a_folder_that_cannot_be_read_is_named(folder, monkeypatch):
    locked = folder / "train" / "digit 1" / "more"
    locked.mkdir(mode=0)
    root = os.geteuid() == 0  # who may read everything
    if root:
        monkeypatch.chdir(folder)  # the folders above are root's alone
        folder.chmod(0o755)
        os.seteuid(65534)
    try:
        with pytest.raises(UserError, match="cannot read train/digit 1/more: Permission denied"):
            data.load("image_folder", "." if root else folder, 8)
    finally:
        if root:
            os.seteuid(0)
