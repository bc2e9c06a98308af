"""Entry points, the runner, stored runs and figures.

`from experiments import compare, load_discriminator, load_generator, load_measures, load_runs`
(docs/library.md).
"""

import atexit
import importlib
import os
import sys
import warnings
from pathlib import Path

# Sacred 0.8.7 still imports pkg_resources; setuptools says so to every user.
warnings.filterwarnings("ignore", message=".*pkg_resources is deprecated")

PROJECT = Path(__file__).resolve().parents[1]

exit_code: int | None = None  # a command's, once it is known


@atexit.register  # before any library's, so that it is called after theirs
def _end() -> None:
    """End a command without Python's last look for garbage, which takes a second: it goes through
    all that was imported."""
    if exit_code is not None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(exit_code)


_WHERE = {
    "compare": "show.library",
    "load_discriminator": "run.nets",
    "load_generator": "run.nets",
    "load_measures": "show.library",
    "load_runs": "run.stored",
}
__all__ = ["PROJECT", *_WHERE]


def __getattr__(name: str):
    """Only what is asked for is imported: a command's --help need not wait for PyTorch."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
