import numpy as np
import pytest
import torch
from conftest import TINY, command

from experiments.run.stored import stored_runs
from forgetting.errors import UserError
from forgetting.seeding import generator
from forgetting.settings import validate
from forgetting.streams import SETTINGS, Schedule, resolved_order
from forgetting.streams.one_vs_all import OneVsAll


class Labels:
    """All that a stream draws by."""

    def __init__(self, classes, n=1000):
        self.train_labels, self.classes = torch.arange(n) % classes, range(classes)

    def drawn(self, rows):
        return {"rows": rows}


def stream(classes, batch_size=64, balanced=True, seed=0, per_task=5, order=None, **switch):
    schedule = Schedule(order or range(classes), per_task, 2, **switch)
    return OneVsAll(Labels(classes), schedule, batch_size, balanced, generator(seed, "stream"))


def drawn(batches, step):
    """The rows, tasks and targets of one batch."""
    of_it = batches.draw(step)
    labels = batches.dataset.train_labels[of_it["rows"]]
    return of_it["rows"], of_it["tasks"], labels == of_it["tasks"]


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_order_and_balance(classes):
    batches = stream(classes)
    for step in range(5 * classes * 2):
        _, tasks, targets = drawn(batches, step)
        assert batches.schedule.task(step) == step // 5 % classes
        assert (tasks == step // 5 % classes).all()
        assert targets.sum() == 32 and len(targets) == 64


def test_a_batch_has_the_images_of_its_rows_and_a_target_each(digits):
    batches = OneVsAll(digits, Schedule(range(10), 5, 1), 16, True, generator(0, "stream"))
    of_it = batches.draw(7)
    batch = batches.batch(of_it, 7)
    assert torch.equal(batch.labels, digits.train_labels[of_it["rows"]])
    assert torch.equal(batch.targets, (batch.labels == 1).float())
    images = digits.train_images[of_it["rows"]].float() / 127.5 - 1
    assert torch.equal(batch.images, images) and batch.step == 7


def test_an_odd_batch_has_one_more_of_the_others():
    *_, targets = drawn(stream(10, batch_size=7), 0)
    assert targets.sum() == 3 and len(targets) == 7


def test_negatives_come_from_every_other_class():
    batches = stream(10, batch_size=2000)
    rows, _, targets = drawn(batches, 0)
    counts = torch.bincount(batches.dataset.train_labels[rows[~targets]], minlength=10)
    assert counts[0] == 0
    assert (counts[1:] - 1000 / 9).abs().max() < 50  # 5 standard deviations


def test_the_plain_stream_is_one_to_nine():
    *_, targets = drawn(stream(10, batch_size=5000, balanced=False), 0)
    assert abs(targets.float().mean().item() - 0.1) < 0.02


def test_one_seed_one_stream():
    first, again, other = (drawn(stream(10, seed=s), 0)[0] for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_purposes_of_one_seed_are_independent():
    draws = {p: torch.rand(3, generator=generator(0, p)).tolist() for p in ("stream", "rotation")}
    assert draws["stream"] != draws["rotation"]


def test_other_draws_leave_the_streams_own_alone():
    batches, alone = stream(10), stream(10)
    boundary = generator(0, "boundary")
    assert not torch.equal(batches.draw(0, boundary)["rows"], batches.draw(0, boundary)["rows"])
    assert torch.equal(batches.draw(1)["rows"], alone.draw(1)["rows"])


def test_tasks_come_in_the_order_that_is_asked_for():
    batches = stream(3, order=[2, 0, 1])
    assert [batches.schedule.task(step) for step in range(0, 30, 5)] == [2, 0, 1, 2, 0, 1]
    assert drawn(batches, 0)[1].unique().tolist() == [2]
    assert resolved_order(None, 4, 0) == [0, 1, 2, 3] and resolved_order([1, 0], 2, 0) == [1, 0]
    seeded = resolved_order("seeded", 10, 0)
    assert sorted(seeded) == list(range(10))
    assert seeded == resolved_order("seeded", 10, 0) != resolved_order("seeded", 10, 1)


def test_boundaries_are_between_tasks():
    for switch in ("abrupt", "gradual", "none"):
        schedule = Schedule(range(3), 5, 2, switch)
        assert schedule.steps == 30
        assert [n for n in range(31) if schedule.changes(n)] == [5, 10, 15, 20, 25]
        assert [n for n in range(31) if schedule.ends(n)] == [5, 10, 15, 20, 25, 30]


def test_a_gradual_switch_mixes_the_next_task_in():
    schedule = Schedule(range(3), 10, 2, "gradual", blend=0.4)
    shares = [schedule.share_of_next(step) for step in range(60)]
    ramp = [0.0] * 6 + [0.2, 0.4, 0.6, 0.8]
    assert shares == pytest.approx(ramp * 5 + [0.0] * 10)  # the last task has no next one
    batches = stream(3, batch_size=4000, per_task=10, switch="gradual", blend=0.4)
    _, tasks, targets = drawn(batches, 9)
    assert set(tasks.tolist()) == {0, 1}
    assert (tasks == 1).float().mean().item() == pytest.approx(0.8, abs=0.04)
    for task in (0, 1):  # half of each task's rows are of its class
        assert targets[tasks == task].float().mean().item() == pytest.approx(0.5, abs=0.1)
    _, tasks, _ = drawn(batches, 29)
    assert set(tasks.tolist()) == {2, 0}  # round again


def test_without_switches_every_batch_is_of_all_tasks_alike():
    for step in (0, 17):
        _, tasks, targets = drawn(stream(10, batch_size=5000, switch="none"), step)
        assert (torch.bincount(tasks, minlength=10) - 500).abs().max() < 110
        assert targets.sum() == 2500
    _, tasks, targets = drawn(stream(10, batch_size=5000, balanced=False, switch="none"), 0)
    assert abs(targets.float().mean().item() - 0.1) < 0.02
    assert torch.bincount(tasks, minlength=10).min() > 390


@pytest.mark.parametrize(
    "name, value, line",
    [
        ("stream.order", [0, 0, 1], "stream.order: it must be seeded or a permutation"),
        ("stream.order", [1, 2], "stream.order: it must be seeded or a permutation"),
        ("stream.order", "random", "stream.order: it must be seeded or a permutation"),
        ("stream.order", [[0]], "stream.order: it must be seeded or a permutation"),
        ("stream.order", 3, "stream.order: it must be seeded or a permutation"),
        ("stream.switch", "slow", "stream.switch: it must be abrupt, gradual or none"),
        ("stream.blend", 0, "stream.blend: it must be a number above 0 and up to 1"),
        ("stream.blend", 1.5, "stream.blend: it must be a number above 0 and up to 1"),
        ("stream.blend", "half", "stream.blend: it must be a number above 0 and up to 1"),
    ],
)
def test_bad_settings_are_one_line(name, value, line):
    with pytest.raises(UserError) as refused:
        validate({name: value}, SETTINGS)
    assert str(refused.value).startswith(line) and "\n" not in str(refused.value)


def test_an_order_of_other_tasks_is_refused():
    with pytest.raises(UserError, match=r"stream.order: it must have each of the 10 tasks once"):
        resolved_order([1, 0], 10, 0)


@pytest.mark.parametrize("stream", ["one_vs_all", "fakes"])
def test_evaluated_at_the_turns_ends_alone(stream, tmp_path):
    words = ["with", *TINY, f"stream.name={stream}", "method=vanilla", "results_dir=runs"]
    words += ["eval_every=3", "eval_after_switch=False", "relearning=False"]
    done = command("sequential_tasks.py", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (run,) = stored_runs(tmp_path / "runs")
    assert set(np.diff(run.metrics["accuracy/current"][0])) == {3}
    assert "final_layer_end" in run.result and "recovery" not in run.result
    assert not any(name.startswith("relearning") for name in {*run.metrics, *run.result})
