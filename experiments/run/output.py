"""What a command prints, whoever listens."""

import os
import sys
from contextlib import suppress


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
