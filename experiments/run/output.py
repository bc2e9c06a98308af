"""What a command prints, whoever listens."""

import argparse
import os
import shlex
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import experiments


class _Dropped:
    """A stream that drops what nobody takes: a pipe that is closed must not end what prints."""

    def __init__(self, stream):
        self._stream = stream

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()


def never_fail() -> None:
    """For a command, before it does anything: from here on printing cannot fail it, nor its end.

    What the output's encoding lacks is written as an escape.
    """
    for name in ("stdout", "stderr"):
        # None: it was closed when the process began, and libraries that print would fail.
        stream = getattr(sys, name) or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        with suppress(AttributeError):  # a notebook's is no file
            stream.reconfigure(errors="backslashreplace")
        # Python flushes both at its end, and the exit code is another where that fails.
        stream = _Dropped(stream)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def command(main: Callable[[], object]) -> NoReturn:
    """Do what a command does, and end with its exit code."""
    never_fail()
    try:
        main()
        code = 0
    except SystemExit as end:
        if end.code is not None and not isinstance(end.code, int):
            raise  # a line that Python prints
        code = end.code or 0
    experiments.exit_code = code
    sys.exit(code)


def typed(script: str | Path, *words: str) -> str:
    """A command as it is typed in this folder, with the Python that runs this."""
    python = Path(sys.executable)
    if python.is_relative_to(Path.cwd()):
        python = python.relative_to(Path.cwd())
    return shlex.join([str(python), str(script), *words])


def example(*words: str) -> str:
    """For a command's help: words that can be typed behind it, as they are typed where the help was
    asked for."""
    return f"Example:\n  {typed(sys.argv[0], *words)}"


def parser(description: str, *words: str) -> argparse.ArgumentParser:
    """Of a command, with an example in its help: `words`."""
    return argparse.ArgumentParser(
        description=description,
        epilog=example(*words),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
