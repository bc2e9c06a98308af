"""Robustness grids: GANs that differ in regularizer, Adam's betas and discriminator steps alone, as
in Table 2 of Chen et al., arXiv 1811.11212, or, beyond it, in the learning rate. Other scales are
never pooled."""

from collections import Counter
from collections.abc import Sequence

from experiments.run.identity import FACTS, as_text
from experiments.run.stored import StoredRun
from experiments.show.groups import Group, groups

SETTINGS = (
    *("regularizer", "spectral_norm", "gradient_penalty_weight"),
    *("adam_betas", "d_steps", "lr"),
)
WIDTHS = ("width", "generator_width", "discriminator_width")
SCHEDULE = ("probe_every", "probe_images", "probe_features", "quality_every")
PAPERS_CELL = ("spectral_norm", None, (0.0, 0.9), 1, 2e-4)
LEAST_CELLS = 4  # fewer are a comparison, to be seen curve beside curve


def cell(run: StoredRun) -> tuple:
    """(regularizer, lambda or None, (beta1, beta2), steps of D, learning rate) of a run."""
    config = run.config
    penalised = config["regularizer"] == "gradient_penalty"
    weight = float(config["gradient_penalty_weight"]) if penalised else None
    betas = tuple(config["adam_betas"])
    return config["regularizer"], weight, betas, config["d_steps"], config["lr"]


def families(found: Sequence[Group]) -> list[list[Group]]:
    """Groups of GANs, those together that differ in cell alone."""
    by_scale: dict[str, list[Group]] = {}
    for group in found:
        by_scale.setdefault(as_text(group.readable_settings(SETTINGS)), []).append(group)
    return list(by_scale.values())


def scales(found: Sequence[Sequence[Group]]) -> list[str]:
    """A family's scale in words, and what else tells it from the other families: of the schedule
    of probes, which changes no sample, only where nothing else does."""
    texts = _scales(found, WIDTHS + SCHEDULE)
    return texts if len(set(texts)) == len(texts) else _scales(found, WIDTHS)


def _scales(found: Sequence[Sequence[Group]], unsaid: Sequence[str]) -> list[str]:
    texts = []
    unsaid = (*unsaid, *FACTS, "steps", "preset", "dataset.label")
    settings = [family[0].readable_settings(SETTINGS) for family in found]
    for family, own in zip(found, settings, strict=True):
        config = family[0].runs[0].config
        widths = f"{config['generator_width']}/{config['discriminator_width']}"
        texts.append(f"{config['steps']} updates, width {widths}")
        differing = [
            k for k in own if k not in unsaid and any(o.get(k) != own[k] for o in settings)
        ]
        texts[-1] += "".join(f", {k}={own[k]}" for k in differing)
    return texts


def pooled(found: Sequence[Group]) -> list[Group]:
    """A group for each family, named by its scale where data and preset do not tell it."""
    whole = families(found)
    alike = Counter(_of(family[0]) for family in whole)
    return [
        Group(
            [run for group in family for run in group.runs],
            scale if alike[_of(family[0])] > 1 else "",
        )
        for family, scale in zip(whole, scales(whole), strict=True)
    ]


def without_grids(runs: Sequence[StoredRun]) -> list[StoredRun]:
    """Without the runs of grids: one curve a cell is more than a figure can show. A cell that has
    twice the runs of any other stays: some seeds of others beside it make no grid of it. Where
    nothing else is there of the same data and preset, the paper's cell stays, or else the first."""
    whole = families(groups(runs, "gan_probe"))
    grids = [family for family in whole if len(family) >= LEAST_CELLS]
    left_out = [group for family in grids for group in family]
    others = [group for family in whole if family not in grids for group in family]
    for family in grids:
        by_size = sorted(family, key=lambda group: len(group.runs), reverse=True)
        if len(by_size[0].runs) >= 2 * len(by_size[1].runs):
            left_out.remove(by_size[0])
        elif not any(_of(group) == _of(family[0]) for group in others):
            of_paper = [group for group in family if cell(group.runs[0]) == PAPERS_CELL]
            left_out.remove((of_paper or family)[0])
    kept = [group for family in whole for group in family if group not in left_out]
    shown = {as_text(run.identity) for group in kept for run in group.runs}
    return [run for run in runs if run.study != "gan_probe" or as_text(run.identity) in shown]


def _of(group: Group) -> tuple[str, str]:
    return group.runs[0].data, group.runs[0].preset
