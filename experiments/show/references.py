"""What a probe's curve is to be read against: references, and no bounds."""

from collections.abc import Sequence

import numpy as np
from matplotlib.patheffects import withStroke

from experiments.run.stored import StoredRun
from experiments.show.plotting import completed
from forgetting.measures import FINAL_LAYER

UNTRAINED = "probe_final_layer_untrained"  # in a planted run's result
SUPERVISED = "supervised"  # the arm that learns the labels


def references(runs: Sequence[StoredRun], metric: str) -> dict[str, float]:
    """Words -> the probe's accuracy, means over runs: of the untrained nets, of those trained on
    the labels as long, and of the pixels themselves."""
    runs = [run for run in completed(runs) if metric in run.metrics]
    bare = [run for run in runs if not run.config.get("plant_updates")]
    untrained = [run.metrics[metric][1][0] for run in bare]
    if metric == FINAL_LAYER and not bare:
        untrained = [run.result[UNTRAINED] for run in runs if UNTRAINED in run.result]
    found = {
        "untrained": untrained,
        SUPERVISED: [run.metrics[metric][1][-1] for run in bare if run.arm == SUPERVISED],
    }
    if metric == FINAL_LAYER:
        pixels = [run.result["probe_pixels"] for run in runs if "probe_pixels" in run.result]
        found["32 components of the pixels"] = pixels
    return {words: float(np.mean(values)) for words, values in found.items() if values}


def draw_references(axis, runs: Sequence[StoredRun], metric: str) -> None:
    found = references(runs, metric)
    lowest = min(found.values(), default=None)
    for words, value in found.items():
        axis.axhline(value, color="0.4", linestyle=":", linewidth=0.8, zorder=0)
        # The pixels and an untrained net can be close: one is named below its line.
        side = "top" if len(found) > 1 and value == lowest else "bottom"
        place = {"transform": axis.get_yaxis_transform(), "ha": "right", "va": side}
        named = axis.text(1, value, words, fontsize="xx-small", color="0.3", **place)
        # Curves may cross it.
        named.set_path_effects([withStroke(linewidth=1.5, foreground="white")])
