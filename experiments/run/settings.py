"""Settings that mean the same in every experiment."""

from forgetting.data import SIZES
from forgetting.settings import (
    Rule,
    adam_betas,
    boolean,
    choice,
    duration,
    integer,
    number,
    optional,
    path,
    run_id,
    text,
)


def pixels() -> Rule:
    def accept(value):
        if isinstance(value, bool | float) or value not in SIZES:
            raise ValueError
        return value

    return Rule(f"one of {', '.join(map(str, SIZES))} (pixels)", accept)


# The same word for the same thing in every experiment.
COMMON = {
    "preset": optional(choice("quick", "cpu", "paper"), "none"),
    "seed": integer(0, 2**31 - 1),
    "dataset.name": choice("auto", "digits", "cifar10", "image_folder"),
    "dataset.root": path(),
    "dataset.size": optional(pixels(), "the data's own, 32 for a folder"),
    "dataset.label": optional(text(), "the data's own name"),
    "dataset.memory_mb": optional(integer(1), "half of this machine's"),
    "batch_size": integer(4, 65536),
    "width": integer(1, 4096),
    "lr": number(above=0),
    "adam_betas": adam_betas(),
    "spectral_norm": boolean(),
    "device": choice("auto", "cpu", "cuda"),
    "precision": choice("auto", "fp32", "bf16"),
    "results_dir": path(),
    "checkpoint_every": integer(1),
    "resume": optional(run_id(), "a run of its own"),
    "stop_after": optional(duration(), "run to the end"),
}
