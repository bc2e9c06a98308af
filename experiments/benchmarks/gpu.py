"""Everything that needs a GPU, in one command of few minutes: `make gpu OUT=DIR`.

Part 1 runs the tests, 2 measures speed, 3 runs the sequential study, 4 slices of the GANs' (see
experiments/benchmarks/parts.py). Each is a process with a share of the time, ended with all that
it started when that is over; what it found by then is in DIR:

    report.json     the card, and how each part ended
    bench.json      rows for `python experiments/bench.py merge DIR`
    runs.tar.gz     completed runs, as they are published
    log.txt         what the parts said
"""

import argparse
import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from experiments import PROJECT
from forgetting.errors import UserError
from forgetting.files import write_atomically

SHARES = {1: 100, 2: 130, 3: 110, 4: 80}  # seconds of eight minutes
PARTS = (sys.executable, "-m", "experiments.benchmarks.parts")
BESIDE = 60  # of the same: to read the images and to write
LOG_BYTES = 10**6  # of each part's, its end
# A look at the network fails at once, where it could hang or begin a download.
OFFLINE = dict.fromkeys(("http_proxy", "https_proxy", "HTTPS_PROXY"), "http://127.0.0.1:9")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--out", required=True, metavar="DIR")
    parser.add_argument("--minutes", default="8")
    parser.add_argument("--parts", default="1,2,3,4", metavar="N,...")
    parser.add_argument("--images", metavar="DIR", help="CIFAR-10 as train/ and test/; else digits")
    parser.add_argument("--rehearse", action="store_true", help="the same on a CPU, small")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        if not options.out:
            raise UserError("OUT: it must name a folder, as in: make gpu OUT=DIR")
        if options.images and not (Path(options.images) / "train").is_dir():
            raise UserError(f"IMAGES: there is no folder {options.images}/train")
        seconds = shares(_minutes(options.minutes), _parts(options.parts))
        images = os.path.abspath(options.images) if options.images else None
        failed = run(Path(options.out).absolute(), seconds, images, options.rehearse)
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(1 if failed else 0)


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not 0 < minutes < 1000:
        raise UserError(f"MINUTES: it must be a number above 0, not {text!r}")
    return minutes


def _parts(text: str) -> list[int]:
    known = {str(part): part for part in SHARES}
    chosen = [word.strip() for word in text.split(",")]
    if unknown := [word for word in chosen if word not in known]:
        raise UserError(f"PARTS: there is no part {unknown[0]!r}; there are {','.join(known)}")
    return sorted({known[word] for word in chosen})


def shares(minutes: float, parts: list[int]) -> dict[int, float]:
    """Seconds of each part, in proportion to what they have of eight minutes, and of what is
    BESIDE them (0)."""
    beside = BESIDE * minutes / 8
    each = (60 * minutes - beside) / sum(SHARES[part] for part in parts)
    return {0: beside, **{part: SHARES[part] * each for part in parts}}


def run(
    out: Path,
    seconds: dict[int, float],
    images: str | None,
    rehearse: bool,
    command: Sequence[str] = PARTS,
) -> bool:
    """Run the parts one after another; whether one failed or was not through in its time.

    seconds: as `shares` gives them. command: what takes a part's number, `out`, its seconds and
    the images."""
    out.mkdir(parents=True, exist_ok=True)
    _adopt_orphans()
    environment = {
        **os.environ,
        **OFFLINE,
        "PYTHONPATH": os.pathsep.join(
            [str(PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])]
        ),
        "PYTHONUNBUFFERED": "1",
        "REHEARSE": "1" if rehearse else "",
    }
    report = {"rehearsal": rehearse, "images": images or "digits", "parts": {}}
    logs = b""
    for part, share in seconds.items():
        log = out / "log.part"
        words = [*command, str(part), str(out), f"{share:.1f}", *([images] if images else [])]
        print(f"part {part}, {share:.0f} s at most", flush=True)
        start = time.monotonic()
        with log.open("wb") as file:
            ended = _one(words, share, file, environment)
        taken = time.monotonic() - start
        content = log.read_bytes()[-LOG_BYTES:]
        log.unlink()
        logs += f"---------- part {part}\n".encode() + content
        write_atomically(out / "log.txt", logs)
        said = (content.decode(errors="replace").strip().splitlines() or [""])[-1]
        if part == 0 and ended == "done":
            report["machine"] = json.loads(said)
        else:
            report["parts"][part] = {
                "ended": ended,
                "seconds": round(taken, 1),
                "share": round(share, 1),
                "said": said,
            }
        write_atomically(out / "report.json", json.dumps(report, indent=1).encode() + b"\n")
        print(f"part {part}: {ended} after {taken:.0f} s: {said}", flush=True)
    return any(part["ended"] != "done" for part in report["parts"].values())


def _one(words: list[str], share: float, log, environment: dict[str, str]) -> str:
    """How the process ended: done, failed, or at its deadline. Nothing that it started is left."""
    process = subprocess.Popen(
        words,
        cwd=PROJECT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        return "failed" if process.wait(share) else "done"
    except subprocess.TimeoutExpired:
        return "stopped at its deadline"
    finally:
        _end_descendants()
        process.poll()


# ------------------------------------------------------------------ processes


def _adopt_orphans() -> None:
    """What outlives its parent becomes this process's child, and is found when a part is over."""
    set_child_subreaper = 36
    with contextlib.suppress(OSError, AttributeError):  # another system
        ctypes.CDLL("libc.so.6").prctl(set_child_subreaper, 1)


def _end_descendants() -> None:
    """Ask all that this process started, and what that started, to end; then make them."""
    for signal_, patience in ((signal.SIGTERM, 3), (signal.SIGKILL, 3)):
        deadline = time.monotonic() + patience
        asked = set()
        while (left := _descendants()) and time.monotonic() < deadline:
            for pid in left - asked:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal_)
            asked |= left
            time.sleep(0.05)


def _descendants() -> set[int]:
    """Process ids of all living descendants. Children that ended are laid to rest."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # Behind the name, which may hold anything: the state, then the parent.
            state, parent, *_ = entry.read_text(encoding="utf-8").rpartition(")")[2].split()
            if state == "Z":
                with contextlib.suppress(OSError):
                    os.waitpid(int(entry.parent.name), os.WNOHANG)
            else:
                children.setdefault(int(parent), []).append(int(entry.parent.name))
    found, ask = set(), [os.getpid()]
    while ask:
        more = children.get(ask.pop(), [])
        found |= set(more)
        ask += more
    return found


if __name__ == "__main__":
    main()
