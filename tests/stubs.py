"""Runs that met recorded generators, made by hand."""

from pathlib import Path

import numpy as np

from experiments.run.identity import arm_name, identity
from experiments.run.stored import StoredRun
from experiments.run.study import studies
from forgetting.measures import Logged, of_run
from forgetting.settings import nested, with_defaults

TURN = 100  # updates of a generator's turn


def stub(auc, *, accuracy=None, relearning=(), unit=1, seed=None, model="uncond", colour=None,
         **settings) -> StoredRun:  # fmt: skip
    """A run whose AUC after every turn is auc (turns of all cycles, T); before the first, 0.5.

    accuracy: likewise; None: as auc. relearning: generator from 0 -> updates. unit: the number of
    its recording, and, where None, of its seed. settings: flat, with _ for a dot after stream.
    """
    auc = np.asarray(auc, float)
    accuracy = auc if accuracy is None else np.asarray(accuracy, float)
    turns, tasks = auc.shape
    study, seed = studies()["sequential_tasks"], unit if seed is None else seed
    settings = {key.replace("stream_", "stream."): value for key, value in settings.items()}
    asked = {"method": "vanilla", "preset": "quick", "seed": seed, "stream.name": "fakes",
             "dataset.name": "digits", "dataset.label": "digits", "iterations_per_task": TURN,
             "cycles": turns // tasks, "device": "cpu", "precision": "fp32"}  # fmt: skip
    flat = with_defaults(asked | settings, study.settings)
    facts = {"images": "abc", "recording": f"{model}_{unit} 0123456789abcdef"}
    own = identity(study, flat, **facts)
    # As the study logs it: after the last update of a turn and after the first of the next.
    starts = TURN * np.arange(turns)
    steps = np.sort(np.concatenate([[0], starts + 1, starts + TURN]))
    metrics = {"rate/real": (steps, np.full(len(steps), 0.5))}
    for kind, after in (("auc", auc), ("accuracy", accuracy)):
        for j in range(tasks):
            before = np.concatenate([[0.5], after[:-1, j]])
            values = np.concatenate([[0.5], np.stack([before, after[:, j]], 1).ravel()])
            metrics[f"{kind}/task_{j}"] = (steps, values)
        metrics[f"{kind}/current"] = metrics[f"{kind}/task_0"]
    for j, updates in dict(relearning).items():
        metrics[f"relearning/task_{j}"] = (steps[-1:], np.array([float(updates)]))
    config = nested(flat)
    colour = np.full((tasks, tasks), 0.7) if colour is None else np.asarray(colour)
    about = {"name": f"{model}_{unit}", "sha256": "0123456789abcdef" * 4, "model": model,
             "steps": list(range(tasks)), "colour_auc": colour.tolist()}  # fmt: skip
    arm = arm_name(study, own)
    omitted = "".join(map(str, flat["stream.omit"]))
    name = f"{arm}-{flat['stream.switch']}-{omitted}-{unit}-{seed}"
    return StoredRun(
        id=name,
        folder=Path("runs") / name,
        study=study.name,
        arm=arm,
        seed=seed,
        data="digits",
        preset="quick",
        config=config,
        identity=own,
        result=of_run(Logged(metrics, config)),
        info={"data": {"classes": list("0123456789")}, "recording": about},
        code="0123456789",
        asked=("quick", *(f"{key}={value}" for key, value in asked.items() if "stream" in key)),
        metrics=metrics,
    )
