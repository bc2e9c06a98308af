"""Commands in processes that begin with what every command imports: forked, one each.

Importing takes four of the five seconds of a short command, and the suite runs hundreds. The
process is one of its own all the same: what it is given, prints, leaves and ends with is a real
command's. What depends on how Python starts, or on more than the folder, asks for a real start.
"""

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

# Ends where it is asked to; a child goes on behind the loop, as a script that Python began with.
SERVER = """
import experiments  # the first, as in a script
import json, os, runpy, sys
import matplotlib.pyplot, seaborn, sklearn.metrics, torch._dynamo
import experiments.run.runner, experiments.show.drawings, experiments.sweeps.engine
assert len(os.listdir("/proc/self/task")) == 1, "a fork has no other threads"
asked, answers = os.fdopen(int(sys.argv[1])), os.fdopen(int(sys.argv[2]), "w")
for line in asked:
    argv, folder, out, err = json.loads(line)
    child = os.fork()
    if not child:
        break
    print(child, file=answers, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=answers, flush=True)
else:
    os._exit(0)
os.chdir(folder)
for path, number in ((out, 1), (err, 2)):
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, number)
    os.close(file)
asked.close()
answers.close()
sys.argv, sys.path[0] = argv, os.path.dirname(argv[0])
runpy.run_path(argv[0], run_name="__main__")
"""


class Warm:
    """A process that has imported, and forks a command when it is asked to; environment: its."""

    def __init__(self, environment: Mapping[str, str]):
        self._one_at_a_time = threading.Lock()
        theirs, self._ask = os.pipe()
        self._answer, ours = os.pipe()
        self._server = subprocess.Popen(
            [sys.executable, "-c", SERVER, str(theirs), str(ours)],
            env=environment,
            stdin=subprocess.DEVNULL,
            pass_fds=(theirs, ours),
        )
        os.close(theirs)
        os.close(ours)

    def run(
        self, argv: Sequence[str], folder: Path, timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """What `subprocess.run([python, *argv])` in this folder gives, its output as text."""
        with self._one_at_a_time, tempfile.TemporaryDirectory() as kept:
            files = [Path(kept, name) for name in ("out", "err")]
            asked = json.dumps([list(map(str, argv)), str(folder), *map(str, files)])
            os.write(self._ask, f"{asked}\n".encode())
            child = int(self._line(60))
            try:
                code = int(self._line(timeout))
            except TimeoutError:
                os.kill(child, signal.SIGKILL)
                self._line(60)
                raise subprocess.TimeoutExpired(list(argv), timeout) from None
            return subprocess.CompletedProcess(argv, code, *(f.read_text() for f in files))

    def close(self) -> None:
        os.close(self._ask)
        self._server.wait()
        os.close(self._answer)

    def _line(self, timeout: float) -> bytes:
        line = b""
        while not line.endswith(b"\n"):
            if not select.select([self._answer], [], [], timeout)[0]:
                raise TimeoutError
            content = os.read(self._answer, 1)
            assert content, "the process that forks has ended"
            line += content
        return line
