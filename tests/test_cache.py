"""The cache of a folder's images: never half made, never another folder's, whoever else is here."""

import errno
import json
import os
import signal
import subprocess
import sys
import time

import conftest
import numpy as np
import pytest
import torch
from PIL import Image

from forgetting import data, image_folder, mapped
from forgetting.errors import UserError
from forgetting.mapped import MappedImages

CACHE = ".cache-8px.npy"


def load(folder, memory=None):
    return data.load("image_folder", folder, 8, memory=memory)


def temporary(folder):
    return [path for path in folder.iterdir() if path.name.endswith(".tmp")]


@pytest.fixture
def reads(monkeypatch):
    """The paths of the image files that were read."""
    seen = []

    def counted(path, *rest):
        seen.append(path)
        return read_picture(path, *rest)

    read_picture = image_folder.read_picture
    monkeypatch.setattr(image_folder, "read_picture", counted)
    return seen


def test_a_second_start_reads_the_cache(folder, reads, monkeypatch):
    first = load(folder)
    assert len(reads) == 24
    second = load(folder)
    assert len(reads) == 24 and second.fingerprint == first.fingerprint
    assert torch.equal(second.train_images, first.train_images)
    monkeypatch.chdir(folder.parent)
    load(folder.name)  # the same folder in other words
    monkeypatch.chdir(folder)
    load(".")
    assert len(reads) == 24


def test_a_changed_image_is_read_again(folder):
    first = load(folder)
    Image.new("RGB", (8, 8), (9, 9, 9)).save(folder / "train" / "digit 0" / "0.png")
    changed = load(folder)
    assert (changed.train_images[0] == 9).all() and changed.fingerprint != first.fingerprint


def test_equal_length_and_time_hide_no_change(folder):
    """Other pixels in the same file; a file or a class folder in another's place."""
    train = folder / "train"
    for c in range(3):
        for i in range(4):
            path = train / f"digit {c}" / f"{i}.png"
            path.unlink()
            Image.new("RGB", (8, 8), (c, i, 0)).save(path.with_suffix(".bmp"))  # of equal length
    for path in [*train.glob("*/*"), *train.iterdir()]:
        os.utime(path, (1e9, 1e9))

    def first_two():
        return load(folder).train_images[:2, :, 0, 0].tolist()

    one, two = train / "digit 0" / "0.bmp", train / "digit 0" / "1.bmp"
    assert first_two() == [[0, 0, 0], [0, 1, 0]]
    one.write_bytes(one.read_bytes()[:-3] + b"\x07\x07\x07")  # the last pixel
    os.utime(one, (1e9, 1e9))
    assert load(folder).train_images[0].max() == 7
    one.rename(train / "x")
    two.rename(one)
    (train / "x").rename(two)
    assert first_two()[0] == [0, 1, 0]
    for here, there in (("digit 0", "x"), ("digit 1", "digit 0"), ("x", "digit 1")):
        (train / here).rename(train / there)
    assert first_two() == [[1, 0, 0], [1, 1, 0]]


def test_an_image_that_changes_while_it_is_read_makes_no_cache(folder, monkeypatch):
    def changed_behind(path, *rest):
        Image.new("RGB", (9, 9)).save(folder / "train" / "digit 1" / "3.png")
        return read_picture(path, *rest)

    read_picture = image_folder.read_picture
    monkeypatch.setattr(image_folder, "read_picture", changed_behind)
    with pytest.raises(UserError, match=r"digit 1/3\.png changed while it was read"):
        load(folder)
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize("damage", ["empty", "garbage", "cut", "cut in the pixels", "a pixel"])
def test_a_damaged_cache_is_made_anew(folder, reads, damage):
    first = load(folder)
    cache = folder / CACHE
    whole = cache.read_bytes()
    flipped = whole[:500] + bytes([whole[500] ^ 1]) + whole[501:]
    damages = {"empty": b"", "garbage": b"garbage", "cut": whole[:-5], "a pixel": flipped}
    cache.write_bytes(damages.get(damage, whole[:1000]))
    for _ in range(2):
        again = load(folder)
        assert torch.equal(again.train_images, first.train_images)
        assert again.fingerprint == first.fingerprint
    assert len(reads) == 48 and cache.read_bytes() == whole


def test_a_cache_damaged_behind_its_pages_is_noticed(folder):
    load(folder)
    cache = folder / CACHE
    images = load(folder, memory=1000)
    with open(cache, "r+b") as file:
        file.seek(128 + 5 * 192)
        file.write(bytes([1, 2, 3]))
    assert len(images.train_images[torch.tensor([4, 6])]) == 2
    with pytest.raises(UserError, match=r"\.cache-8px\.npy is not what was written; remove it"):
        images.train_images[5]


def test_a_cache_of_another_reader_is_not_read(folder, reads, monkeypatch):
    first = load(folder)
    images = torch.cat([first.train_images, first.test_images]).numpy()
    np.save(folder / CACHE, images + 1)  # as they were before they said what reader made them
    (folder / ".cache-8px.json").write_text(json.dumps({"listing": "x", "fingerprint": "y"}))
    assert torch.equal(load(folder).train_images, first.train_images)
    assert len(reads) == 48 and not (folder / ".cache-8px.json").exists()
    monkeypatch.setattr(image_folder, "READER", image_folder.READER + 1)
    load(folder)
    assert len(reads) == 72


def test_a_folder_that_takes_no_cache(folder, monkeypatch, capsys):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    before = load(folder)
    (folder / CACHE).unlink()
    monkeypatch.setattr("os.replace", full)
    with pytest.raises(UserError, match=r"do not fit in memory, and .* cannot take their cache"):
        load(folder, memory=1000)
    assert load(folder).fingerprint == before.fingerprint
    assert "No space left on device): every start reads again" in capsys.readouterr().out
    assert not list(folder.glob(".*"))


def test_what_a_disk_does_not_keep_is_no_cache(folder, monkeypatch, capsys):
    """The fingerprint is of the bytes that are read back."""
    before = load(folder)
    (folder / CACHE).unlink()
    describe = mapped.describe

    def lossy(file, about):
        describe(file, about)
        file.seek(300)
        file.write(b"\0" * 50)
        file.flush()

    monkeypatch.setattr(image_folder, "describe", lossy)
    found = load(folder)
    assert torch.equal(found.train_images, before.train_images)
    assert found.fingerprint == before.fingerprint
    assert "it does not hold what is written to it" in capsys.readouterr().out
    with pytest.raises(UserError, match="does not hold what is written"):
        load(folder, memory=1000)
    assert not list(folder.glob(".*"))


# ------------------------------------------------------------------ several processes on one folder


@pytest.mark.parametrize("memory", [None, 1000])
def test_two_that_start_at_once_do_not_share_a_file(folder, monkeypatch, memory):
    """The second comes when the first has read five images, and does not wait for it."""
    inner = []
    read_picture = image_folder.read_picture

    def interrupted(path, *rest):
        if path.endswith("digit 1/1.png") and not inner:
            inner.append(None)
            monkeypatch.setattr(image_folder, "PATIENCE", -1)
            inner[0] = load(folder, memory), (folder / CACHE).stat().st_ino
        return read_picture(path, *rest)

    monkeypatch.setattr(image_folder, "read_picture", interrupted)
    outer = load(folder, memory)
    (second, inode) = inner[0]
    assert outer.fingerprint == second.fingerprint
    for part in ("train_images", "test_images"):
        assert torch.equal(getattr(outer, part)[:12], getattr(second, part)[:12])
    assert (folder / CACHE).stat().st_ino == inode  # the second may have it open over NFS
    assert not temporary(folder)


STARTED = """
import sys, time
from pathlib import Path
from forgetting import data, image_folder

def slow(path, *rest):
    if path.endswith("train/digit 1/1.png") and len(sys.argv) > 2:
        print("half", flush=True)
        while not Path(sys.argv[2]).exists():
            time.sleep(0.01)
    count[0] += 1
    return read_picture(path, *rest)

count, read_picture = [0], image_folder.read_picture
image_folder.read_picture = slow
found = data.load("image_folder", sys.argv[1], 8)
print(found.fingerprint, count[0])
"""


def start(folder, *go_on) -> subprocess.Popen:
    words = [sys.executable, "-c", STARTED, str(folder), *map(str, go_on)]
    return subprocess.Popen(words, cwd=conftest.PROJECT, stdout=subprocess.PIPE, text=True)


def test_a_second_process_waits_for_the_first(folder):
    first = start(folder, folder / "go on")
    assert first.stdout.readline() == "half\n"
    second = start(folder)
    assert "another process reads" in second.stdout.readline()
    (folder / "go on").touch()
    fingerprint, count = first.communicate(timeout=60)[0].split()
    assert count == "24"
    assert second.communicate(timeout=60)[0].split() == [fingerprint, "0"]
    assert not temporary(folder)


def test_what_a_kill_leaves_behind_is_removed(folder, monkeypatch):
    killed = start(folder, folder / "never")
    assert killed.stdout.readline() == "half\n"
    (left,) = temporary(folder)
    monkeypatch.setattr(image_folder, "PATIENCE", -1)
    load(folder)
    assert temporary(folder) == [left]  # its writer lives
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=60)
    load(folder)
    assert not temporary(folder)


def test_files_of_other_machines_are_removed_when_they_are_old(folder):
    young, old = (folder / f".cache-8px.npy.0123abcd-{c * 16}.tmp" for c in "ab")
    for path, hours in ((young, 1), (old, 25)):
        path.touch()
        os.utime(path, (time.time() - hours * 3600,) * 2)
    start = time.monotonic()
    load(folder)
    assert time.monotonic() - start < 30  # nobody has written to it for an hour
    assert temporary(folder) == [young]
    before = folder / ".cache-8px.4711.tmp"  # as the reader before this one called them
    before.touch()
    load(folder)
    assert before.exists()
    os.utime(before, (time.time() - 25 * 3600,) * 2)
    load(folder)
    assert temporary(folder) == [young]


# ------------------------------------------------------------------ memory


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


def test_drawn_images_are_read_by_the_host_where_they_lie_in_a_file(folder):
    whole = data.load("image_folder", folder, 16)
    rows = torch.tensor([3, 0, 11, 3])
    assert whole.drawn(rows).keys() == {"rows"}
    elsewhere = data.load("image_folder", folder, 16, memory=1000).to("meta")
    drawn = elsewhere.drawn(rows)
    assert drawn["images"].device.type == "cpu"
    assert torch.equal(elsewhere.images_of(drawn), whole.images_of({"rows": rows}))


def control_groups(root, own: str, **files) -> int:
    """A machine whose process is in the groups `own`, with these files."""
    (root / "proc" / "self").mkdir(parents=True)
    (root / "proc" / "self" / "cgroup").write_text(own)
    for name, content in files.items():
        path = root / "sys" / "fs" / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return mapped.memory_here(root)


MACHINE = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    ("own", "files", "found"),
    [
        ("0::/\n", {"memory.max": "max\n"}, MACHINE),
        ("0::/\n", {"memory.max": "1000000\n"}, 10**6),
        ("0::/a/b\n", {"a/memory.max": "3000\n", "a/b/memory.max": "max\n"}, 3000),
        ("0::/a/b\n", {"a/memory.max": "3000\n", "a/b/memory.max": "2000\n"}, 2000),
        ("0::/../elsewhere\n", {"memory.max": "4000\n"}, 4000),
        (
            "4:cpu,memory:/docker/1\n0::/\n",  # a path of the host, in a container
            {"memory/memory.limit_in_bytes": "5000\n"},
            5000,
        ),
        ("4:memory:/a\n", {"memory/a/memory.limit_in_bytes": f"{2**63 - 4096}\n"}, MACHINE),
        ("1:name=systemd:/a:b\n", {"memory.max": "7\n"}, MACHINE),
    ],
)
def test_a_containers_memory_counts_where_it_is_less(tmp_path, own, files, found):
    assert control_groups(tmp_path, own, **files) == found


def test_without_control_groups_the_machines_memory_counts(tmp_path):
    assert mapped.memory_here(tmp_path) == MACHINE
