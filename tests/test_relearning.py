"""How many updates relearning takes, of which generators, and that it leaves no trace."""

import copy
from functools import partial

import pytest
import torch
from test_fakes import losses, opponents

from forgetting.relearning import updates_to_relearn
from forgetting.seeding import generator


class Learns:
    """Its area under the ROC curve after so many updates."""

    player, batch_size, device = "discriminator", 8, torch.device("cpu")

    def __init__(self, curve):
        self.curve, self.updates = curve, 0

    def train(self):
        pass

    def draw(self, player, n, step):
        return {}

    def update(self, batch, drawn):
        self.updates += 1


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        (lambda n: 0.95, 0.0),
        (lambda n: 0.5 + n / 100, 40.0),
        (lambda n: 0.5 + n / 250, 100.0),
        (lambda n: 0.8 if n < 30 else 1.0, 25.0),  # between the looks at 20 and 30
        (lambda n: 0.5, 120.0),
    ],
)
def test_updates_to_relearn_by_hand(monkeypatch, digits, recording, curve, expected):
    learner = opponents(digits, recording).learner
    monkeypatch.setattr(learner, "bare", lambda net: Learns(curve))
    got = updates_to_relearn(
        learner,
        iter(range(1000)),
        lambda again: curve(again.updates),
        120,
    )
    assert got == pytest.approx(expected)


def test_relearning_is_of_a_copy_and_without_methods(digits, recording):
    learner = opponents(digits, recording, method="rotation")
    before = copy.deepcopy(learner.net.state_dict())
    batches = learner.stream.of_task(1, generator(0, "again"))
    seen = []

    def auc(again):
        assert not again.methods and again.net is not learner.net
        seen.append(learner.held_out.auc(partial(learner._read, learner=again), 1))
        return seen[-1]

    learner.learner.lr = 1e-2
    updates_to_relearn(learner.learner, batches, auc, 60)
    assert seen[-1] > seen[0]
    assert all(torch.equal(v, before[k]) for k, v in learner.net.state_dict().items())


def test_what_a_twin_relearns_is_what_it_never_met(digits, recording):
    in_turn = [0, 1, 2, 3]
    for omit, order, names in (
        ([], in_turn, {0, 1, 2}),
        ([2, 4], in_turn, {1, 3}),
        ([], [3, 1, 0, 2], {3, 1, 0}),  # all but the last to come
    ):
        learner = opponents(digits, recording, omit=omit, order=order, iterations_per_task=2)
        losses(learner, learner.total_steps)
        found = {k for k in learner.evaluate() if k.startswith("relearning/")}
        assert found == {f"relearning/task_{j}" for j in names}
