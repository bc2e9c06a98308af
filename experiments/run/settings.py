"""What the settings of every experiment share, and how Sacred is told of a table of them."""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from sacred.config.config_dict import ConfigDict

from experiments import PROJECT
from experiments.run.study import Study
from forgetting.data import SIZES
from forgetting.methods import Arm, describe
from forgetting.settings import (
    Rule,
    Setting,
    adam_betas,
    boolean,
    choice,
    duration,
    flat,
    integer,
    nested,
    number,
    optional,
    path,
    run_id,
    text,
    with_defaults,
)


def default_path(inside: str) -> str:
    """A path in the project, as seen from the current folder."""
    return os.path.relpath(PROJECT / inside)


def digits_unless_named(asked: Mapping[str, Any]) -> str:
    """`dataset.name` of a small preset: digits, unless a folder of other images was named."""
    return "auto" if "dataset.root" in asked else "digits"


def never(settings: Mapping[str, Any]) -> bool:
    """For a setting from which others follow: a run computes from those."""
    return False


def pixels() -> Rule:
    def accept(value):
        if isinstance(value, bool | float) or value not in SIZES:
            raise ValueError
        return value

    return Rule(f"one of {', '.join(map(str, SIZES))} (pixels)", accept)


_PRESET = optional(choice("quick", "cpu", "paper"), "none")
_DATA = choice("auto", "digits", "cifar10", "image_folder")
_SIZE = optional(pixels(), "the data's own, 32 for a folder")
_LABEL = optional(text(), "the data's own name")
_MEMORY = optional(integer(1), "half of this machine's")
_RESUME = optional(run_id(), "a run of its own")
_STOP = optional(duration(), "run to the end")
COMMON = {
    "preset": Setting(
        None,
        _PRESET,
        "which preset this is; written `with quick`, `with cpu` or `with paper`",
        never,
    ),
    "seed": Setting(
        0, integer(0, 2**31 - 1), "of weights, images and draws, each with a generator of its own"
    ),
    "dataset.name": Setting("auto", _DATA, "auto, digits, cifar10 or image_folder"),
    "dataset.root": Setting(
        lambda _: default_path("data"),
        path(),
        "the folder of CIFAR-10, or that holds train/ and test/",
        incidental=True,
    ),
    "dataset.size": Setting(
        None, _SIZE, "side of the images in pixels; unset: the data's own, 32 for a folder"
    ),
    "dataset.label": Setting(
        None, _LABEL, "what figures call the data; unset: the data's own name", never
    ),
    "dataset.memory_mb": Setting(
        None,
        _MEMORY,
        "a folder's images beyond it are read as needed; unset: half of what is here",
        incidental=True,
    ),
    "batch_size": Setting(64, integer(4, 65536), "images a step"),
    "width": Setting(128, integer(1, 4096), "channels of every residual block"),
    "spectral_norm": Setting(False, boolean(), "divide every weight by its largest singular value"),
    "lr": Setting(1e-3, number(above=0), "Adam's learning rate"),
    "adam_betas": Setting([0.9, 0.999], adam_betas(), "Adam's decay rates"),
    "device": Setting("auto", choice("auto", "cpu", "cuda"), "auto, cpu or cuda"),
    "precision": Setting(
        "auto",
        choice("auto", "fp32", "tf32", "bf16"),
        "auto, fp32, tf32 (of a GPU: faster convolutions, of fewer bits) or bf16",
    ),
    "graphs": Setting(
        "auto",
        choice("auto", "off"),
        "auto (a GPU gets an iteration as one CUDA graph) or off",
        incidental=True,
    ),
    "results_dir": Setting(
        lambda _: default_path("results/runs"), path(), "where runs are stored", incidental=True
    ),
    "checkpoint_every": Setting(500, integer(1), "iterations between checkpoints", incidental=True),
    "resume": Setting(
        None,
        _RESUME,
        "a run's id: go on with it; auto: with the unfinished run of these settings",
        incidental=True,
    ),
    "stop_after": Setting(
        None,
        _STOP,
        "stop in good order after 90s, 10m, 2h; exit code 75, resumable",
        incidental=True,
    ),
    "tensorboard": Setting(
        False,
        boolean(),
        "whether TensorBoard can show the run while it goes on, from its folder",
        incidental=True,
    ),
}
# What the runner itself does with them; a study is given the others.
OF_THE_RUNNER = COMMON.keys() - {
    *("seed", "batch_size", "width", "spectral_norm", "lr", "adam_betas", "graphs")
}


def common(**other: Any) -> dict[str, Setting]:
    """The settings of every experiment; other: those whose default (or whole Setting) is another
    in this one."""
    return COMMON | {
        key: value if isinstance(value, Setting) else replace(COMMON[key], default=value)
        for key, value in other.items()
    }


class _Defaults(ConfigDict):
    """A study's settings as Sacred takes them: those of the arm's methods among them, defaults that
    follow from what was asked for, and the words for print_config."""

    def __init__(self, study: Study):
        self.study = study

    def __call__(self, fixed=None, preset=None, fallback=None):
        chosen, asked = flat(preset or {}), flat(fixed or {})
        table = self.study.table(asked.get(self.study.arm))
        whole = with_defaults(chosen | asked, table)
        # What is asked for beyond a preset is told from it, and printed as modified.
        self._conf = nested(
            {k: chosen.get(k, setting.default_in(whole)) for k, setting in table.items()}
        )
        summary = super().__call__(fixed, preset, fallback)
        summary.docs = {key: setting.help for key, setting in table.items()}
        return summary


class _Preset(ConfigDict):
    def __init__(self, study: Study, name: str):
        super().__init__({"preset": name})
        self.study, self.name, self.__doc__ = study, name, study.presets[name][0]

    def __call__(self, fixed=None, preset=None, fallback=None):
        chosen = self.study.chosen_by(self.name, flat(fixed or {}))
        self._conf = nested({"preset": self.name, **chosen})
        return super().__call__(fixed, preset, fallback)


def arm_setting(default_arms: str, parse: Callable[[str], Arm]) -> Setting:
    """What a run is of: methods, by name or as files of the user's. parse raises UserError."""

    def accept(value):
        if not isinstance(value, str) or not value:
            raise ValueError
        return parse(value).asked  # of a file the absolute path, for workers elsewhere

    rule = optional(Rule("names joined by +, or a path that ends with .py", accept), default_arms)
    return Setting(None, rule, f"names joined by +, see `methods`; unset: {default_arms}")


def tell(study: Study) -> None:
    """Tell a study's experiment of its settings, of its presets, and of the command that lists the
    methods."""
    experiment = study.experiment
    experiment.configurations.append(_Defaults(study))
    for name in study.presets:
        experiment.named_configs[name] = _Preset(study, name)

    @experiment.command(unobserved=True)
    def methods():
        """List what an arm can be made of: a line each, settings, source."""
        print(describe())
