"""Command lines that no experiment should take."""

import random
from collections.abc import Mapping

# Any text is a path or a label, and any positive number a rate or a weight.
TEXT = ("results_dir", "dataset.root", "preset", "dataset.label", "resume", "stop_after")
WORDS = ["{}", "()", "[1]", "nan", "-inf", "'", "{'a':1}", "!!", "é", "\\", "[[]]", "None.x"]


def bad_lines(rules: Mapping, n: int, seed: int) -> list[str]:
    """n words behind `with`, each wrong in its own way: misspelt settings, and settings with values
    that are negative, no number or no word of theirs."""
    rng = random.Random(seed)
    keys = [key for key in rules if key not in TEXT]

    def value() -> str:
        return rng.choice(
            [
                lambda: str(-rng.randint(1, 10 ** rng.randint(1, 30))),
                lambda: repr(-rng.random() * 10 ** rng.randint(-8, 8)),
                lambda: rng.choice(WORDS),
                lambda: repr(["a" * rng.randint(0, 3) for _ in range(rng.randint(0, 3))]),
                lambda: f"'{rng.choice('xyz')}{rng.random()}'",
            ]
        )()

    def misspelt() -> str:
        key = list(rng.choice(keys))
        key.insert(rng.randint(0, len(key)), rng.choice("abcxyz_."))
        if rng.random() < 0.5:
            key[rng.randrange(len(key))] = rng.choice("qjw")
        return "".join(key)

    lines = []
    while len(lines) < n:
        kind = rng.random()
        if kind < 0.6:
            line = f"{rng.choice(keys)}={value()}"
        elif kind < 0.8:
            line = f"{misspelt()}={rng.randint(0, 9)}"
        else:
            line = "".join(rng.choice("abcdefgh._=1 ") for _ in range(rng.randint(1, 12)))
        if line.partition("=")[0].strip() not in rules or kind < 0.6:
            lines.append(line)
    return lines
