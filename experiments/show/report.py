"""One self-contained page with every figure and table, and where each comes from."""

import base64
import html
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from experiments.run.stored import StoredRun
from experiments.show.texts import EMPTY

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 60rem; margin: 0 auto;
       padding: 0 1rem 4rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin: 3rem 0 .3rem; } p { margin: .3rem 0; }
img { width: 100%; min-width: 38rem; height: auto; display: block; }
.wide { overflow-x: auto; margin: .8rem 0; }
table { border-collapse: collapse; font-size: .85rem; white-space: nowrap; }
th, td { text-align: left; padding: .2rem .8rem .2rem 0; border-bottom: 1px solid #ddd; }
details { font-size: .85rem; color: #444; } pre { overflow-x: auto; background: #f5f5f5;
          padding: .5rem; }
nav a { margin-right: 1rem; overflow-wrap: anywhere; }
"""


@dataclass(frozen=True)
class Entry:
    """What the page says of one figure (`picture`, a PNG) or table (`table`); made_by: the command
    that makes runs for it."""

    title: str
    shows: str
    made_by: str
    runs: Sequence[StoredRun]
    picture: Path | None = None
    table: pd.DataFrame | None = None


def report(entries: Sequence[Entry], left_out: Mapping[str, int], dashed: int = 0) -> str:
    """The page as HTML, with all images inside; it needs neither network nor script.

    left_out: how many runs were not complete, by their status; dashed: how many of them figures
    show all the same.
    """
    counts = ", ".join(f"{n} {status}" for status, n in sorted(left_out.items())) or "none"
    if dashed:
        counts += f"; {dashed} of them drawn dashed, and in no table"
    shown = {run.folder: run for entry in entries for run in entry.runs}
    links = "".join(f'<a href="#e{i}">{_text(e.title)}</a> ' for i, e in enumerate(entries))
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>Do networks forget when their task keeps moving?</title><style>{STYLE}</style>",
        "</head><body><h1>Do networks forget when their task keeps moving?</h1>",
        f"<p>All figures and tables from {len(shown)} stored runs. Left out, not complete: "
        f"{counts}.</p><nav>{links}</nav>",
    ]
    for i, entry in enumerate(entries):
        parts.append(f'<section id="e{i}"><h2>{_text(entry.title)}</h2><p>{_text(entry.shows)}</p>')
        if entry.picture:
            content = base64.b64encode(entry.picture.read_bytes()).decode()
            picture = f'<img alt="{_text(entry.title)}" src="data:image/png;base64,{content}">'
            parts.append(f'<div class="wide">{picture}</div>')
        if entry.table is not None:
            cells = entry.table.replace("", EMPTY)
            parts.append(f'<div class="wide">{cells.to_html(index=False, border=0)}</div>')
        parts.append(f"{_origin(entry)}</section>")
    return "\n".join([*parts, "</body></html>"]) + "\n"


def _origin(entry: Entry) -> str:
    if not entry.runs:
        return f"<p>No completed run for it yet. This makes some:</p><pre>{entry.made_by}</pre>"
    arms: dict[tuple, list[StoredRun]] = {}
    for run in entry.runs:
        without_seed = re.sub(r" seed=\d+$", "", run.command)
        of = (run.data, str(run.preset), run.arm, run.code, run.identity.get("recording", ""))
        arms.setdefault((*of, without_seed), []).append(run)
    any_recording = any("recording" in run.identity for run in entry.runs)
    rows = [
        {
            "runs": ", ".join(f"{run.collection}/{run.id}" for run in runs),
            "data": data,
            "preset": preset,
            "arm": arm,
            "seeds": ", ".join(str(run.seed) for run in runs),
            "code version": code,
        }
        | ({"recording": recording} if any_recording else {})
        for (data, preset, arm, code, recording, _), runs in arms.items()
    ]
    seeds: dict[str, set[int]] = {}
    for (*_, command), runs in arms.items():
        seeds.setdefault(command, set()).update(run.seed for run in runs)
    commands = "\n".join(_for_each(command, sorted(those)) for command, those in seeds.items())
    data, presets, codes = (sorted({run[i] for run in arms}) for i in (0, 1, 3))
    every_seed = sorted({run.seed for run in entry.runs})
    line = (
        f"From {len(entry.runs)} run{'s'[: len(entry.runs) - 1]}: {', '.join(data)}; preset "
        f"{', '.join(presets)}; seeds {', '.join(map(str, every_seed))}; code {', '.join(codes)}"
    )
    return (
        f"<details><summary>{_text(line)}. Their ids, and the commands that make them</summary>"
        f'<div class="wide">{pd.DataFrame(rows).to_html(index=False, border=0)}</div>'
        f"<pre>{_text(commands)}</pre></details>"
    )


def _for_each(command: str, seeds: Sequence[int]) -> str:
    if len(seeds) == 1:
        return f"{command} seed={seeds[0]}"
    return f"for seed in {shlex.join(map(str, seeds))}; do {command} seed=$seed; done"


def _text(text: str) -> str:
    return html.escape(text)
