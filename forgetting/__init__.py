"""Learning from a moving stream of tasks, and what is forgotten on the way.

`from forgetting import cka, linear_probe, read_features` (docs/library.md).
"""

import importlib

_WHERE = {"cka": "similarity", "linear_probe": "probes", "read_features": "features"}
__all__ = [*_WHERE]


def __getattr__(name: str):
    """Only what is asked for is imported: a command's --help need not wait for PyTorch."""
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
