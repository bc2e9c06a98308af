"""Kill runs at random moments, take them up again, and compare with runs that nobody killed; then
start bad command lines as processes. The long version of what the tests do a little of.

python tests/torture.py [--kills 50] [--lines 500]
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bad_lines import bad_lines
from conftest import ENVIRONMENT, PROJECT, command

from experiments import gan_probe, sequential_tasks

TINY_RUNS = {
    "sequential_tasks.py": "method=rotation checkpoint_every=11 iterations_per_task=30",
    "gan_probe.py": "model=ssgan checkpoint_every=3 steps=60 probe_every=20 quality_images=500",
}
SMALL_PROBE = ["probe_images=60", "probe_features=16"]
STUDIES = {
    script: ["with", "quick", "device=cpu", "width=4", *SMALL_PROBE, *words.split()]
    for script, words in TINY_RUNS.items()
}


def metrics(run: Path) -> dict:
    """What was measured, without the times it was measured at."""
    stored = json.loads((run / "metrics.json").read_text())
    return {name: (m["steps"], m["values"]) for name, m in stored.items()}


def kill_and_resume(script: str, kills: int, moments: random.Random, folder: Path) -> int:
    """Kill runs of one study until it was done `kills` times, resuming each to its end; how many
    runs it took. AssertionError where one ends otherwise than the run that nobody killed.

    moments: what draws the time from a process's start to its kill.
    """
    arguments = STUDIES[script]
    start = time.monotonic()
    # Started as those that are killed are, and not forked, which takes less time.
    whole = command(script, *arguments, "results_dir=whole", cwd=folder, env=ENVIRONMENT)
    assert whole.returncode == 0, whole.stderr
    longest = time.monotonic() - start
    done, runs = 0, 0
    while done < kills:
        runs += 1
        again = [*arguments, f"results_dir=killed-{runs}", "resume=auto"]
        finished = False
        while not finished and done < kills:
            process = subprocess.Popen(
                [sys.executable, str(PROJECT / "experiments" / script), *again],
                cwd=folder,
                env=ENVIRONMENT,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            try:
                _, errors = process.communicate(timeout=moments.uniform(0.3, 1) * longest)
                assert process.returncode == 0, errors
                finished = True
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.communicate()
                done += 1
        if not finished:
            end = command(script, *again, cwd=folder)
            assert end.returncode == 0, end.stderr
        # Killed before its first checkpoint, a run is begun anew under another id.
        (complete,) = [
            path.parent
            for path in folder.glob(f"killed-{runs}/*/run.json")
            if json.loads(path.read_text())["status"] == "COMPLETED"
        ]
        assert metrics(complete) == metrics(folder / "whole" / "1"), complete
    return runs


def refuses(script: str, line: str, folder: Path) -> None:
    """AssertionError unless the real command refuses a bad line as it should."""
    done = command(script, "with", "quick", "results_dir=runs", line, cwd=folder)
    assert done.returncode in (1, 2), (script, line, done.returncode)
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, (line, done.stderr)
    assert not (folder / "runs").exists(), (script, line)


def refuse_all(lines: Sequence[tuple[str, str]], folder: Path) -> None:
    """The same for many (script, line), two at a time."""
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda pair: refuses(*pair, folder), lines))


def every_line(n: int, seed: int) -> list[tuple[str, str]]:
    """n bad command lines, half of each experiment: (script, line)."""
    studies = {
        "sequential_tasks.py": sequential_tasks.STUDY,
        "gan_probe.py": gan_probe.STUDY,
    }
    return [
        (script, line)
        for script, study in studies.items()
        for line in bad_lines(study.settings, n // 2, seed)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--lines", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    start = time.monotonic()
    runs = 0
    for i, script in enumerate(STUDIES):
        with tempfile.TemporaryDirectory() as folder:
            moments = random.Random(f"{options.seed} {script}")
            kills = (options.kills + i) // 2
            runs += kill_and_resume(script, kills, moments, Path(folder))
    with tempfile.TemporaryDirectory() as folder:
        refuse_all(every_line(options.lines, options.seed), Path(folder))
    print(
        f"torture: {options.kills} kills in {runs} runs, each of which ended to the bit as if "
        f"nobody had; {options.lines} bad command lines, each refused in one line; "
        f"{time.monotonic() - start:.0f} s"
    )


if __name__ == "__main__":
    main()
