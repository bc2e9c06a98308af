"""The vector that the heads read."""

from forgetting.measures.base import LAYER, Logged, Measure, measure

MEASURES: list[Measure] = []

FINAL_LAYER = "probe/final_layer"


@measure(MEASURES, "final layer's probe at the end", "higher", LAYER, FINAL_LAYER)
def final_layer_end(logged: Logged) -> float:
    return float(logged.metrics[FINAL_LAYER][1][-1])


@measure(MEASURES, "taught: final layer, above untrained", "higher", LAYER, FINAL_LAYER)
def taught(logged: Logged) -> float | None:
    """Mean over the probes of a run minus that of the untrained net; None where it was planted."""
    if logged.config.get("plant_updates"):
        return None
    _, values = logged.metrics[FINAL_LAYER]
    return float(values[1:].mean() - values[0]) if len(values) > 1 else None


def _of_planted(name: str, words: str) -> Measure:
    """Of a planted run and its twin, and not of one run: see experiments/show/planted.py."""
    found = Measure(name, words, "higher", LAYER, FINAL_LAYER, lambda logged: None)
    MEASURES.append(found)
    return found


TAUGHT = next(one for one in MEASURES if one.name == "taught")
KEPT = _of_planted("kept", "kept: final layer, planted minus not")
HALF_LIFE = _of_planted("kept_half_life", "half-life of what was planted, updates")
