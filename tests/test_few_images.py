"""Folders with few test images: what is cut is said, what cannot be done is refused at once."""

import json

import pytest
from conftest import TINY, command
from PIL import Image

GAN = ["quick", "steps=2", "width=4", "probe_every=2", "probe_images=50", "probe_features=16"]
GAN += ["quality_every=2", "quality_images=500", "batch_size=4", "device=cpu", "model=uncond"]
SEQUENTIAL = [*TINY[:-3], "probe_images=10", "probe_features=16", "device=cpu", "method=vanilla"]


def images(folder, digits, train, test):
    """A folder of digits 0, 1, ... with as many images of each as `train` and `test` say."""
    for split, counts in (("train", train), ("test", test)):
        for c, n in enumerate(counts):
            (folder / split / str(c)).mkdir(parents=True)
            for i, image in enumerate(digits.train_images[digits.train_labels == c][:n]):
                picture = Image.fromarray(image.permute(1, 2, 0).numpy())
                picture.save(folder / split / str(c) / f"{i}.png")
    return ["dataset.name=image_folder", "dataset.root=images", "dataset.size=8"]


@pytest.mark.parametrize(
    "script,words,test,says",
    [
        ("gan_probe.py", GAN, [1], "the distance of samples needs 2 test images or more"),
        ("gan_probe.py", GAN, [2], None),
        ("gan_probe.py", GAN, [1, 1], None),
        ("sequential_tasks.py", SEQUENTIAL, [1, 1], None),
    ],
)
def test_a_run_is_refused_before_it_begins_or_comes_to_its_end(
    script, words, test, says, digits, tmp_path
):
    here = images(tmp_path / "images", digits, [50] * len(test), test)
    done = command(script, "with", *words, *here, "results_dir=runs", cwd=tmp_path)
    runs = list((tmp_path / "runs").glob("*"))
    if says:
        assert done.returncode == 1 and says in done.stderr and done.stderr.count("\n") == 1
        assert not runs
    else:
        assert done.returncode == 0, done.stderr
        assert json.loads((runs[0] / "run.json").read_bytes())["status"] == "COMPLETED"


def test_an_evaluation_that_a_rare_class_cuts_says_so_in_the_run(digits, tmp_path):
    here = images(tmp_path / "images", digits, [10, 10], [30, 2])
    words = [*SEQUENTIAL, *here, "eval_images=40", "results_dir=runs"]
    done = command("sequential_tasks.py", "with", *words, cwd=tmp_path)
    line = "warning: eval_images: 4 test images are used, not 40: equally many of each class, "
    assert done.stdout.count(f"{line}and '1' has 2\n") == 1, done.stdout + done.stderr
    assert line in (tmp_path / "runs/1/cout.txt").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "runs/1/info.json").read_bytes())["evaluation_images"] == 4
    done = command("sequential_tasks.py", "with", *words, "eval_images=4", cwd=tmp_path)
    assert "warning" not in done.stdout
