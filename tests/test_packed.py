"""Runs in a zip are what they are in folders."""

import io
import json
import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import PROJECT, TINY

from experiments import results, sequential_tasks
from experiments.results import export, load_runs
from experiments.run import packed, runner, twins
from experiments.run.stored import run_folders, runs_and_rest, sample_grids, stored_runs
from experiments.show import drawings
from experiments.show.gan import picture
from experiments.show.groups import groups
from experiments.show.origin import command_of
from experiments.show.plotting import sources
from forgetting.errors import UserError

OLD = Path(__file__).with_name("runs_9afe66d")
REFERENCE = PROJECT / "results/reference"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Shipped runs as folders and as a zip, of both studies: two arms, a run of an equal arm and
    seed, a GAN with its pictures."""
    runs, out = tmp_path_factory.mktemp("runs"), tmp_path_factory.mktemp("out")
    names = [f"sequential_tasks-cpu-{arm}-{i}" for arm in ("vanilla", "rotation") for i in (0, 1)]
    names += [of.name for of in sorted(REFERENCE.glob("gan_probe-cpu-ssgan-0-*"))[:2]]
    for i, name in enumerate(names):
        shutil.copytree(REFERENCE / name, runs / str(i + 1))
    assert export([runs], out / "folders") == export([runs], out / "zip", "few") == 6
    return out


@pytest.fixture(scope="module")
def zipped(folders):
    return folders / "zip"


def by_name(folder):
    return {json.dumps(run.identity, sort_keys=True): run for run in stored_runs(folder)}


def change(zipped: Path, changed: Path, replace: dict) -> None:
    """Copy a zip; replace: name -> other content of that member, or a function of it."""
    with zipfile.ZipFile(zipped) as old, zipfile.ZipFile(changed, "w") as new:
        for name in old.namelist():
            content = replace.get(name, old.read(name))
            new.writestr(name, content(old.read(name)) if callable(content) else content)


def test_packed_runs_are_those_of_the_folders(folders, zipped):
    assert [path.name for path in zipped.iterdir()] == ["few.zip"]
    plain, from_zip = by_name(folders / "folders"), by_name(zipped)
    assert plain.keys() == from_zip.keys() and len(plain) == 6
    for key, run in plain.items():
        other = from_zip[key]
        for name in ("arm", "seed", "data", "preset", "config", "result", "info", "code", "asked"):
            assert getattr(run, name) == getattr(other, name)
        assert command_of(run) == command_of(other) and run.metrics.keys() == other.metrics.keys()
        for name, columns in run.metrics.items():
            assert all(map(np.array_equal, columns, other.metrics[name]))
        assert other.collection == "few" and run.collection == "folders"
    # Of the two runs of one arm and seed, neither has the name that either might have.
    ids = {run.id for run in from_zip.values()}
    assert {name for name in ids if name.startswith("gan_probe-cpu-ssgan-0-")} == {
        name for name in ids if "ssgan" in name
    }
    assert "sequential_tasks-cpu-vanilla-0" in ids


def test_the_table_of_a_zip_is_that_of_its_folder(folders, zipped, tmp_path):
    shutil.copytree(folders / "folders", tmp_path / "runs")
    order = ["study", "arm", "seed", "metric", "step", "value"]
    plain, of_zip = (
        load_runs(folder).drop(columns="run").astype({"arm": str, "metric": str, "study": str})
        for folder in (tmp_path / "runs", zipped)
    )
    plain, of_zip = (t.sort_values(order, ignore_index=True) for t in (plain, of_zip))
    assert len(plain) and plain[order].equals(of_zip[order])
    # Beside each other a run's id alone would not tell which it is.
    shutil.copy(zipped / "few.zip", tmp_path / "runs")
    shutil.rmtree(tmp_path / "runs/sequential_tasks-cpu-rotation-1")
    names = set(load_runs(tmp_path / "runs").run)
    assert f"{tmp_path}/runs/few.zip/sequential_tasks-cpu-rotation-1" in names
    assert f"{tmp_path}/runs/sequential_tasks-cpu-rotation-0" in names


def test_pictures_and_tables_are_read_from_a_zip(folders, zipped):
    runs = [run for run in stored_runs(zipped) if run.study == "gan_probe"]
    plain = by_name(folders / "folders")
    for run in runs:
        other = plain[json.dumps(run.identity, sort_keys=True)]
        grids, others = sample_grids(run.folder), sample_grids(other.folder)
        assert [path.name for path in grids] == [path.name for path in others] and grids
        assert np.array_equal(picture(grids[-1]), picture(others[-1]))
        assert run.table("past_fakes.csv").equals(other.table("past_fakes.csv"))
        assert run.table("past_fakes.csv") is run.table("past_fakes.csv")  # read once


def test_figures_of_a_zip_are_those_of_its_folder(folders, zipped, tmp_path):
    only = ["figure2", "samples", "table1", "measures"]
    for name, folder in (("a", folders / "folders"), ("b", zipped)):
        # The name under which captions speak of them is the one difference.
        shutil.copytree(folder, tmp_path / name / "few")
        drawings.draw([tmp_path / name / "few"], tmp_path / name, only)
    written = sorted(path.name for path in (tmp_path / "a").iterdir() if path.is_file())
    assert {"figure2.png", "samples.png", "measures.csv"} <= set(written)
    for name in written:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    (group,) = groups(stored_runs(zipped), "sequential_tasks")
    assert sources(group.runs) == "4 runs in few"


def test_a_zip_has_the_same_bytes_whatever_the_order(folders, zipped, tmp_path):
    for i, run in enumerate(reversed(run_folders(folders / "folders"))):
        shutil.copytree(run, tmp_path / "runs" / str(i))
    assert export([tmp_path / "runs"], tmp_path / "out", "few.zip") == 6
    assert (tmp_path / "out/few.zip").read_bytes() == (zipped / "few.zip").read_bytes()
    with zipfile.ZipFile(zipped / "few.zip") as archive:
        assert archive.testzip() is None and archive.namelist() == sorted(archive.namelist())
        assert {entry.date_time for entry in archive.infolist()} == {results.LONG_AGO}


def test_packed_runs_can_be_exported_again(folders, zipped, tmp_path):
    assert export([zipped], tmp_path / "a", "few") == export([zipped], tmp_path / "b") == 6
    assert (tmp_path / "a/few.zip").read_bytes() == (zipped / "few.zip").read_bytes()
    for run in run_folders(folders / "folders"):
        # A GAN's second name depends on which of the two came first.
        for name in () if "ssgan" in run.name else packed.files_of(run):
            assert (tmp_path / "b" / run.name / name).read_bytes() == (run / name).read_bytes()


@pytest.mark.parametrize(
    "content,line",
    [
        (lambda whole: whole[: len(whole) // 2], "it is no whole zip: File is not a zip file"),
        (lambda whole: b"", "it is no whole zip: File is not a zip file"),
        (lambda whole: other_zip(), "it is a zip of something else: it holds no NAME/run.json"),
    ],
)
def test_what_is_no_zip_of_runs_is_named_in_one_line(zipped, tmp_path, capsys, content, line):
    shutil.copytree(REFERENCE / "sequential_tasks-cpu-vanilla-0", tmp_path / "1")
    (tmp_path / "bad.zip").write_bytes(content((zipped / "few.zip").read_bytes()))
    (run,) = stored_runs(tmp_path)
    assert run.id == "1"
    assert capsys.readouterr().err == f"passed over {tmp_path}/bad.zip: {line}\n"
    assert twins.find(tmp_path, run.identity)[1] == "COMPLETED"


def other_zip() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("holiday/beach.jpg", b"sand")
        archive.writestr("run.json", "{}")
    return content.getvalue()


def test_a_damaged_run_in_a_zip_leaves_the_others(zipped, tmp_path, capsys):
    whole = (zipped / "few.zip").read_bytes()
    name = "sequential_tasks-cpu-vanilla-0"
    with zipfile.ZipFile(zipped / "few.zip") as archive:
        start = archive.getinfo(f"{name}/metrics.json").header_offset
    damaged = bytearray(whole)
    damaged[start + 500] ^= 0xFF  # in the middle of what it packs
    (tmp_path / "few.zip").write_bytes(damaged)
    runs, _ = runs_and_rest(tmp_path)
    assert len(runs) == 5 and name not in {run.id for run in runs}
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and f"few.zip/{name}/: metrics.json" in lines[0], lines

    change(zipped / "few.zip", tmp_path / "few.zip", {f"{name}/run.json": b'{"status": '})
    assert len(stored_runs(tmp_path)) == 5  # it is another zip now
    assert f"few.zip/{name}/: run.json is no whole JSON" in capsys.readouterr().err


@pytest.mark.parametrize("seed", range(5))
def test_no_damage_is_a_traceback(zipped, tmp_path, seed):
    draws = np.random.default_rng(seed)
    whole = np.frombuffer((zipped / "few.zip").read_bytes(), np.uint8).copy()
    with zipfile.ZipFile(zipped / "few.zip") as archive:
        first = archive.start_dir
    # The directory of its files, where most bytes mean something.
    at = draws.integers(first, len(whole), 8)
    whole[at] = draws.integers(0, 256, len(at))
    (tmp_path / "few.zip").write_bytes(whole.tobytes())
    assert len(stored_runs(tmp_path)) <= 6


def test_a_packed_run_is_complete_and_an_unfinished_one_is_not_gone_on_with(tmp_path, capsys):
    words = [*TINY, "method=vanilla", "precision=fp32", "resume=auto"]

    def run(seed: int, folder: Path) -> str:
        with pytest.raises(SystemExit) as end:
            here = ["x", "with", *words, f"seed={seed}", f"results_dir={folder}"]
            runner.main(sequential_tasks.STUDY, here)
        assert end.value.code == 0
        return capsys.readouterr().out

    run(0, tmp_path / "runs")
    assert export([tmp_path / "runs"], tmp_path / "packed", "mine") == 1
    out = run(0, tmp_path / "packed")
    assert "run sequential_tasks-quick-vanilla-0: vanilla is complete already" in out
    assert [path.name for path in (tmp_path / "packed").iterdir()] == ["mine.zip"]

    def unfinished(content: bytes) -> bytes:
        return json.dumps(json.loads(content) | {"status": "RUNNING"}).encode()

    (tmp_path / "cut").mkdir()
    name = "sequential_tasks-quick-vanilla-0/run.json"
    change(tmp_path / "packed/mine.zip", tmp_path / "cut/mine.zip", {name: unfinished})
    assert "complete already" not in run(0, tmp_path / "cut")
    assert {path.name for path in (tmp_path / "cut").iterdir()} == {"mine.zip", "1"}


PLAN = """
study = "sequential_tasks"
[settings]
iterations_per_task = 3
cycles = 1
width = 4
probe_images = 60
probe_features = 16
[settings.dataset]
name = "digits"
[grid]
seed = [0, 1, 2]
method = ["vanilla"]
"""


def test_a_plans_runs_alone_are_packed(tmp_path, monkeypatch, capsys):
    (tmp_path / "mine.toml").write_text(PLAN)
    for i, change_of in enumerate(({}, {"seed": 1}, {"width": 5}, {"method": "rotation"})):
        run = tmp_path / "runs" / str(i)
        shutil.copytree(OLD / "sequential_tasks-quick-vanilla-0", run)
        config = json.loads((run / "config.json").read_bytes())
        config |= {"iterations_per_task": 3, "cycles": 1, "width": 4}
        config |= {"probe_images": 60, "probe_features": 16, **change_of}
        (run / "config.json").write_text(json.dumps(config))
    arguments = ["export", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]
    plan = ["--plan", str(tmp_path / "mine.toml"), "--pack", "mine"]
    monkeypatch.setattr(sys, "argv", ["results.py", *arguments, *plan])
    results.main()
    lines = capsys.readouterr().out.splitlines()
    of_plan = f"of the 3 runs of {tmp_path}/mine.toml with preset quick, 2 are complete"
    assert lines == [of_plan, f"2 runs in {tmp_path}/out/mine.zip"]
    assert {(run.arm, run.seed) for run in stored_runs(tmp_path / "out")} == {
        ("vanilla", 0), ("vanilla", 1),
    }  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["results.py", *arguments, *plan, "--preset", "cpu"])
    with pytest.raises(SystemExit, match=r"^error: --pack: there is no completed run to pack in "):
        results.main()


@pytest.mark.parametrize("name", ["", "a/b", "../a", ".hidden"])
def test_a_zips_name_is_no_path(zipped, tmp_path, name):
    with pytest.raises(UserError, match=r"^--pack: "):
        export([zipped], tmp_path / "out", name)
    assert not (tmp_path / "out").exists()
