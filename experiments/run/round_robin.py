"""A live GAN's discriminator on the past generators of all runs of its seed.

On its own past alone a discriminator looks wise whose generator is tame. All runs of a seed that
differ in their arms alone keep fakes of the same latents, so each discriminator can be asked.
"""

from collections.abc import Iterator
from pathlib import Path

import torch

from experiments.run import checkpoints
from experiments.run.identity import arm_name, on_any_device, shared
from experiments.run.packed import Folder, Unreadable
from experiments.run.stored import ROUND_ROBIN, Record, read_record, run_folders
from forgetting.errors import UserError
from forgetting.files import table, write_atomically
from gan.models import ALONE, MODELS


def write(study, folder: Path) -> str:
    """Put the scores of a complete run's last discriminator into its folder, a row a generator;
    what was done, in words. study: the run's `ProbeStudy`, as its checkpoint has it.

    Neither the untrained generators nor the last ones are among them. Raises UserError where the
    run is not complete, has no GAN, or a discriminator that needs classes, which fakes of others
    lack.
    """
    record = read_record(folder)
    if record.status != "COMPLETED":
        raise UserError(f"resume: run {folder.name} is not complete; its past is not over")
    if study.gan.conditional:
        raise UserError(
            "resume: a conditional discriminator needs classes, others' fakes lack them"
        )
    if study.generator is None:
        raise UserError(f"resume: a run of {study.arm.model} has no discriminator of fakes")
    rows, runs = [], 0
    for other, fakes in _others(record):
        runs += 1
        about = {"run": other.folder.name, "arm": arm_name(other.study, other.identity)}
        rows += [{**about, **row} for row in study.scores(fakes)]
    if not rows:
        raise UserError("resume: no run of its seed kept past fakes; probe more often")
    write_atomically(folder / ROUND_ROBIN, table(rows))
    return f"run {folder.name} on {len(rows)} past generators of {runs} runs, in {ROUND_ROBIN}"


def takes_part(record: Record) -> bool:
    """Whether `write` has something to ask of a stored run's discriminator."""
    model = MODELS.get(record.identity["model"].split("+")[0])  # None: of another version
    complete = record.status == "COMPLETED" and not record.copy_of and _has_weights(record.folder)
    return complete and model is not None and model.kind not in (ALONE, "class")


def _has_weights(run: Folder) -> bool:
    """Which one in a zip, or exported without them, has not."""
    return isinstance(run, Path) and bool(checkpoints.stored(run))


def _others(record: Record) -> Iterator[tuple[Record, dict[int, torch.Tensor]]]:
    """Each complete run of this one's seed and settings, itself among them, whatever its arm; and
    its past fakes: step -> (1000, 3, S, S) uint8."""
    met = set()
    own = on_any_device(record.identity)
    for path in run_folders(record.folder.parent):
        try:
            other = read_record(path)
        except Unreadable:
            continue  # the figures name it
        if other.status != "COMPLETED" or other.copy_of or not _comparable(record, other):
            continue
        kind = on_any_device(other.identity)
        if kind in met or (kind == own and other.folder != record.folder):
            continue  # a GAN counts once, and this one by its own past
        checkpoint = checkpoints.load(path) if isinstance(path, Path) else None
        parts = checkpoint["study"]["parts"] if checkpoint else {}
        kept = {
            int(name.partition("-")[2]): part
            for name, part in parts.items()
            if name.startswith("fakes-")
        }
        past = {step: kept[step] for step in sorted(kept)[:-1] if step > 0}
        if past:
            met.add(kind)
            yield other, past


def _comparable(one: Record, other: Record) -> bool:
    if one.study.name != other.study.name:
        return False
    a, b = (
        shared(of.study, of.identity, of.info) | {"seed": of.identity["seed"]}
        for of in (one, other)
    )
    return all(a[key] == b[key] for key in (a.keys() & b.keys()) - {"extractor"})
