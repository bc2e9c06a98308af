"""Bring every run of a plan to its end, on this machine or on a cluster (by Dask).

python experiments/sweep.py figure3 --preset cpu [KEY=VALUE ...]

A plan is a file of settings to combine (experiments/sweeps/plan.py). What is complete in the
results folder is left as it is, what is unfinished is gone on with: the same command again always
means "bring me to the end".
"""

import argparse
import sys
from pathlib import Path

from experiments import PROJECT
from experiments.run import output
from experiments.run.beside import cores
from experiments.run.study import require_own_code
from experiments.sweeps.engine import gpus, sweep
from experiments.sweeps.kept import keep, warn
from experiments.sweeps.plan import (
    PLANS,
    PRESETS,
    arms_of,
    key_of,
    look_up,
    read_plan,
    show,
    summary,
    word_of,
)
from forgetting.errors import UserError


def main() -> None:
    named = ", ".join(sorted(path.stem for path in PLANS.glob("*.toml")))
    example = ("figure3", "--preset", "quick", "--dry-run")
    parser = output.parser("Bring every run of a plan to its end.", *example)
    parser.add_argument("plan", metavar="PLAN", help=f"{named}, or a file like theirs")
    parser.add_argument("settings", metavar="KEY=VALUE", nargs="*", help="for every run; optional")
    parser.add_argument("--preset", choices=PRESETS, default="quick", help="quick, if not given")
    folder = PROJECT / "results/runs"
    parser.add_argument("--results-dir", default=folder, metavar="DIR", help="unset: results/runs")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="tcp://... of a Dask cluster")
    text = "how many at once; unset: as many as cores or GPUs. A cluster's are its own"
    parser.add_argument("--workers", type=int, metavar="N", help=text)
    parser.add_argument("--dry-run", action="store_true", help="list the runs and start none")
    parser.add_argument(
        "--keep-going",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="past a run that fails (the default); else stop the others, which can be gone on with",
    )
    options = parser.parse_intermixed_args()
    try:
        require_own_code(__file__)
        if options.workers is not None and options.workers < 1:
            raise UserError("--workers: it must be 1 or more")
        if options.scheduler is not None and not options.scheduler.strip():
            raise UserError("--scheduler: it must be an address, as in tcp://host:8786")
        study, all_words = read_plan(options.plan)
        varied = {key_of(word) for words in all_words for word in words}
        fixed = []
        for word in options.settings:
            key, (_, equals, value) = key_of(word), word.partition("=")
            if not equals:
                hint = f"; a preset is chosen by --preset {word}" if word in PRESETS else ""
                raise UserError(f"{word}: a setting is KEY=VALUE{hint}")
            if key in varied:
                raise UserError(f"{key}: the plan sets it; change it in a copy of the plan")
            here = ("dataset.root", "results_dir", "resume", "stop_after", "preset")
            fixed.append(word_of(key, value) if key in here else word)
        folder = Path(options.results_dir).absolute()
        if folder.exists() and not folder.is_dir():
            raise UserError(f"--results-dir: {folder} is no folder")
        all_words = [(options.preset, *words, *fixed) for words in all_words]
        runs = look_up(study, all_words, folder, elsewhere=bool(options.scheduler))
        if options.dry_run:
            here = 1 if options.scheduler else gpus(runs) or cores()
            warn(Path(options.plan), arms_of(study, all_words))
            show(runs, options.workers or here)
            return
        print(summary(runs))
        complete = sum(not run.to_do for run in runs)
        keep(Path(options.plan), folder, complete, arms_of(study, all_words))
        if not any(run.to_do for run in runs):
            return
        sys.exit(sweep(runs, folder, options.scheduler, options.workers, options.keep_going))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    output.command(main)
