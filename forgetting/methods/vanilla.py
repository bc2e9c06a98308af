"""Plain training: the baseline of the sequential study."""

from forgetting.learner import Method


class Vanilla(Method):
    """Nothing against forgetting."""

    words = "vanilla classifier"
