"""The runs that are shipped with the project, and what the README and docs/ say of them."""

import json
import re
import shlex
from itertools import takewhile

import numpy as np
import pytest
from conftest import PROJECT

from experiments import compare, load_measures
from experiments.run.identity import FACTS, same
from experiments.run.packed import files_of
from experiments.run.runner import asked_for
from experiments.run.stored import run_folders, runs_and_rest
from experiments.run.study import studies
from experiments.show import grids
from experiments.show.groups import groups
from experiments.show.memory import with_memory
from experiments.show.origin import command_of
from experiments.show.planted import with_kept
from experiments.show.tables import TABLES
from experiments.show.texts import EMPTY
from forgetting.measures import meets_fakes

REFERENCE = PROJECT / "results/reference"
PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]
DISTANCE = "fd_cifar10_16px_cnn"
GAIN = {"measure": "linear probe, last cycle minus first"}
CIFAR = {"data": "CIFAR-10 (JPEG q75)", "preset": "cpu"}
AT_HAND = {**CIFAR, "arm": "vanilla", "generators": "those at hand"}
OF_VANILLA = {**CIFAR, "arm": "vanilla", "generators": "all but the last, at the end"}


def more_of(arm):
    """Memory, minus vanilla's, in the table `differences`."""
    return {**CIFAR, "compared": f"{arm} - vanilla", "measure": "memory"}


LIVE = {**CIFAR, "compared": "ssgan - uncond", "over": "5 seeds"}
LIVE_TAUGHT, LIVE_FD = {**LIVE, "measure": "taught"}, {**LIVE, "measure": DISTANCE}
LIVE_PAST = {**LIVE, "measure": "round_robin_auc", "over": "3 seeds"}
LIVE_REPLAY = {**LIVE_PAST, "compared": "uncond+replay - uncond"}
AS_GAN = {**more_of("rotation"), "over": "5 recordings"}


@pytest.fixture(scope="module")
def runs():
    return with_kept(with_memory(runs_and_rest(REFERENCE)[0]))


def test_they_are_plain_files_of_complete_runs(runs):
    folders = run_folders(REFERENCE)
    assert len(runs) == len(folders) >= 60
    assert {path.suffix for path in REFERENCE.iterdir() if path.is_file()} <= {".zip"}
    assert sum(path.stat().st_size for path in REFERENCE.rglob("*") if path.is_file()) < 24e6
    files = [folder / name for folder in folders for name in files_of(folder)]
    assert {path.suffix for path in files} <= {".json", ".txt", ".csv", ".png"}
    for path in files:
        if path.suffix in (".json", ".txt"):
            assert not re.search(r"[\"'\s=](/\w+){2}", path.read_text()), f"a path in {path}"
    for run in runs:
        assert re.fullmatch("[0-9a-f]{10}", run.code), run.folder
        record = json.loads((run.folder / "run.json").read_text())
        assert not record["host"].get("hostname"), run.folder
        assert all("=" in word for word in run.asked if word != run.preset), run.asked


@pytest.fixture(scope="module")
def frames(runs):
    """The tables that `make figures` writes of them, by name."""
    plain = grids.without_grids(runs)
    return {
        name: table.make(table.select(runs if name == "table2" else plain))
        for name, table in TABLES.items()
    }


def test_pages_show_their_tables(frames):
    """A table of numbers on a page is some columns and rows of one that `make figures` writes."""
    shown = {}
    for page in PAGES:
        lines = page.read_text().splitlines()
        for i, line in enumerate(lines):
            if i + 1 < len(lines) and re.fullmatch(r"(\|---)+\|", lines[i + 1]):
                columns = _cells(line)
                of = [name for name, frame in frames.items() if set(columns) <= set(frame.columns)]
                rows = list(takewhile(lambda row: row.startswith("|"), lines[i + 2 :]))
                if of and "…" not in "".join(rows):  # the row to come is tests/test_pages.py's
                    shown.setdefault(page.name, []).append(of[0])
                    known = frames[of[0]][columns].replace("", EMPTY).itertuples(False, None)
                    assert {tuple(_cells(row)) for row in rows} <= set(known), f"{page}: {of[0]}"
                    assert len({tuple(_cells(row)) for row in rows}) == len(rows)
    assert sorted(shown["paper.md"]) == [
        "measures", "past_fakes_measures", "table1", "table2", "table3",
    ]  # fmt: skip
    assert shown == {
        "claims.md": ["claims"],
        "paper.md": shown["paper.md"],
        "results.md": [
            *["memory", "memory", "differences"],
            *["memory", "differences"],
            *["measures", "differences"],
            *["memory", "differences"],
            *["kept_and_taught", "differences", "kept_and_taught", "kept_and_taught"],
            *["kept_and_taught", "differences"],
            *["kept_and_taught", "differences"],
        ],
    }


# Row of the README's table -> claim -> what it is called there, in the column of its verdict.
IN_SHORT = {
    "recorded opponents: memory": {
        "a discriminator remembers more with the rotation loss than without": (
            "rotation above vanilla"
        ),
        "and more than with the same images under shuffled rotation labels": "above shuffled",
        "with replay, too, it remembers more with the rotation loss than without": (
            "rotation and replay, replay alone"
        ),
    },
    "planted: kept": {
        "a discriminator keeps less of what it knew when its opponents move than when they all "
        "stay": "less where opponents move",
        "it keeps more with replay than without": "replay above vanilla*",
        "with room (width 64) it keeps more with the rotation loss than without": (
            "rotation above vanilla at width 64*"
        ),
        "what rotation adds to what is kept is more at width 64 than at 16": "more so than at 16*",
    },
    "planted: taught, at the end": {
        "the rotation loss teaches it more than plain training does": "rotation above vanilla",
        "and more than the same images under shuffled rotation labels do": "above shuffled",
        "what rotation adds to a planted net's end is more where opponents move than where they "
        "all stay": "rotation's gain larger where opponents move",
    },
    "rotation and replay together": {
        "and teach as much as rotation does": "teach as rotation does",
        "rotation and replay together keep as much as replay does": (
            "keep as replay does, which says little"
        ),
    },
    "a classifier: gain from cycle to cycle": {
        "rotation's last cycle minus first is above vanilla's": "rotation above vanilla",
        "rotation's last cycle minus first is above augment's": "rotation above augment",
    },
    "live GANs": {
        "ssgan's final layer has a better probe at the end than uncond's": (
            "probe: ssgan above uncond"
        ),
        "uncond's final layer falls from its peak": "uncond's falls",
        "ssgan's final layer does not fall from its peak": "ssgan's probe does not fall",
        f"ssgan's {DISTANCE} is below uncond's": "Fréchet distance: ssgan below uncond",
    },
}


def test_every_claim_that_is_corrected_is_on_its_page_and_in_the_readme(frames):
    of_readme = (PROJECT / "README.md").read_text().splitlines()
    head = of_readme.index("| | confirmed | undecided | equivalent | against |")
    lines = takewhile(lambda line: line.startswith("|"), of_readme[head + 2 :])
    columns = _cells(of_readme[head])
    table = {cells[0]: dict(zip(columns, cells, strict=True)) for cells in map(_cells, lines)}
    claims = frames["claims"]
    # Where two were to be equal, it is by the interval; one seed decides nothing.
    claims = claims[(claims["p, Holm"] != "") | (claims["verdict"] == "confirmed")]
    verdicts = dict(zip(claims["claim"], claims["verdict"], strict=True))
    assert verdicts.keys() == {words for row in IN_SHORT.values() for words in row}
    for row, of_row in IN_SHORT.items():
        for words, called in of_row.items():
            assert f"| {words} |" in (PROJECT / "docs/claims.md").read_text()
            assert called in table[row][verdicts[words]].split("; "), words
    cells = [cell for row in table.values() for cell in list(row.values())[1:]]
    assert sum(len(cell.split("; ")) for cell in cells if cell) == len(claims)


@pytest.mark.parametrize(
    "page,words,table,row,column",
    [
        ("README.md", "fakes is {} in their turn", "memory", AT_HAND, "AUC, met"),
        ("README.md", "and {} at the end;", "memory", OF_VANILLA, "AUC, met"),
        ("README.md", "never met them has {};", "memory", OF_VANILLA, "AUC, never met"),
        (
            "README.md",
            "to that memory, {}, the loss",
            "memory",
            OF_VANILLA,
            "memory",
        ),
        (
            "README.md",
            "learning rate it adds {} to memory (five",
            "differences",
            AS_GAN,
            "difference",
        ),
        (
            "README.md",
            "the loss adds {} and replay",
            "differences",
            more_of("rotation"),
            "difference",
        ),
        (
            "README.md",
            "replay of 1,000 old fakes {} (ten recordings)",
            "differences",
            more_of("replay"),
            "difference",
        ),
        (
            "README.md",
            "differs at the end by {}, *equivalent*",
            "claims",
            {"claim": "ssgan's final layer has a better probe at the end than uncond's"},
            "difference",
        ),
        (
            "README.md",
            "than where they come in turn, {};",
            "claims",
            {
                "claim": "a discriminator keeps less of what it knew when its opponents move than "
                "when they all stay"
            },
            "difference",
        ),
        (
            "README.md",
            "the loss teaches {} more than plain",
            "claims",
            {"claim": "the rotation loss teaches it more than plain training does"},
            "difference",
        ),
        (
            "docs/claims_to_come.md",
            "replay keeps only {} more",
            "claims",
            {"claim": "it keeps more with replay than without"},
            "difference",
        ),
        (
            "docs/paper.md",
            "unconditional GAN's by {}. What",
            "differences",
            LIVE_TAUGHT,
            "difference",
        ),
        (
            "docs/paper.md",
            "unconditional GAN's by {}, nearly",
            "differences",
            LIVE_FD,
            "difference",
        ),
        ("docs/paper.md", "GAN's, by {} (three seeds", "differences", LIVE_REPLAY, "difference"),
        (
            "docs/paper.md",
            "SS-GAN's differs by {}, undecided",
            "differences",
            LIVE_PAST,
            "difference",
        ),
        ("docs/paper.md", "rotation loss ({})", "measures", GAIN, "rotation"),
        ("docs/paper.md", "worse without ({})", "measures", GAIN, "vanilla"),
    ],
)
def test_numbers_in_sentences_are_theirs(frames, page, words, table, row, column):
    """row: what the table's row has in some columns."""
    frame = frames[table]
    for name, value in row.items():
        frame = frame[frame[name] == value]
    (value,) = frame[column][:1]
    text = " ".join((PROJECT / page).read_text().split())
    assert words.format(value.removesuffix(" undecided")) in text


@pytest.mark.parametrize(
    "words,metric,of",
    [
        ("memory differs by {} from that above", "memory", "loss=hinge"),
        ("by {} of AUC on the same recordings", "past_auc", "stream.switch=gradual"),
        ("memory differs by {} from width 16's", "memory", "width=64"),
    ],
)
def test_other_settings_are_compared_with_the_claims_on_the_same_recordings(words, metric, of):
    """of: what tells the settings from those of the plan `opponents`."""
    table = load_measures(REFERENCE)
    table = table[(table.metric == metric) & (table.arm == "vanilla")]
    usual = table.settings.str.contains("loss=bce.*relearning=True.*switch=abrupt, width=16")
    other = table.settings.str.contains(of)
    table = table.assign(arm=np.where(usual, "usual", of), settings="")[usual | other]
    (row,) = compare(table, baseline="usual").itertuples()
    said = words.format(f"{row.difference:+.3f} [{row.low:+.3f}, {row.high:+.3f}]")
    assert said in " ".join((PROJECT / "docs/results.md").read_text().split())


def test_captions_say_of_settings_only_what_the_preset_does_not(runs):
    """The settings of most shipped runs follow from their preset, and from their stream."""
    plain = grids.without_grids(runs)
    titles = [g.title for name in ("sequential_tasks", "gan_probe") for g in groups(plain, name)]
    assert len(set(titles)) == len(titles)
    on = "CIFAR-10 (JPEG q75), preset cpu"
    assert on in titles
    assert f"{on}, opponents=8 of uncond, stream.name=fakes, width=16" in titles
    assert sum(" loss=hinge" in title for title in titles) == 3  # planted or not, and opponents
    assert not any("loss=bce" in title or "dataset.size=16" in title for title in titles)


def test_no_other_number_of_a_result_is_in_the_readmes_sentences():
    text = (PROJECT / "README.md").read_text()
    text = re.sub(r"```.*?```|^(    |\|).*$", "", text, flags=re.DOTALL | re.MULTILINE)
    assert len(re.findall(r"[+-]?\d\.\d{3}", text.replace("1811.11212", ""))) == 3 * 7 + 3


@pytest.mark.parametrize("seeds", [3, 4])
def test_what_was_seen_on_the_way_is_what_these_seeds_say(runs, seeds):
    of_study = [run for run in runs if run.study == "sequential_tasks"]
    some = [run for run in of_study if run.seed < seeds and not meets_fakes(run.config)]
    (value,) = TABLES["claims"].make(some)["difference"][:1]
    text = " ".join((PROJECT / "docs/claims.md").read_text().split())
    assert f"{'seeds ' if seeds == 3 else ''}0 to {seeds - 1}" in text and value in text


def test_every_command_makes_its_run_again(runs):
    """Whatever became of the presets since."""
    for run in runs:
        study = studies()[run.study]
        again, _ = asked_for(study, shlex.split(command_of(run))[3:])
        assert same(again, run.identity, but=FACTS), command_of(run)


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]
