"""The method on docs/own_method.md, taken from the page and run."""

import copy
import io
import re

import pytest
import torch
from conftest import PROJECT
from test_gan import study as gan
from test_sequential import study as sequential

PAGE = (PROJECT / "docs/own_method.md").read_text()
CODE = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "my_idea.py"
    path.write_text(CODE)
    return path


def make(study, digits, path, seed=0, **changes):
    if study is sequential:
        return study(digits, method=str(path), seed=seed, **changes)
    return study(digits, model=f"uncond+{path}", seed=seed, boundary_every=2, **changes)


def losses(of_study, n):
    return [{k: v.item() for k, v in of_study.step().items()} for _ in range(n)]


def test_the_page_shows_a_whole_file_of_under_40_lines():
    assert len(CODE.splitlines()) < 40
    for what in ("register_buffer", "learner.head", "generator=self.draws", "Setting("):
        assert what in CODE


@pytest.mark.parametrize("study", [sequential, gan], ids=["sequential", "gan"])
def test_it_runs_and_goes_on_to_the_bit_between_boundaries(digits, path, study):
    through = make(study, digits, path)
    logged = losses(through, 5)  # past a boundary of either study
    name = "loss/my_idea" + ("" if study is sequential else "_d")
    assert all(name in step for step in logged)
    method = through.learner.methods["my_idea"]
    assert method.memory.abs().sum() > 0
    restored = make(study, digits, path, seed=7)
    restored.load_state_dict(copy.deepcopy(through.state_dict()))
    assert losses(restored, 1) == losses(through, 1)
    assert torch.equal(restored.learner.methods["my_idea"].head[0].weight, method.head[0].weight)
    if study is sequential:
        assert losses(restored, 6) == losses(through, 6)


PLAIN = """
import collections
from forgetting.learner import Method

class Counting(Method):
    def setup(self, learner):
        self.count, self.seen, self.queue = 0, {"labels": []}, collections.defaultdict(list)

    def loss(self, learner, batch, out, drawn):
        self.count += 1
        self.seen["labels"].append(out.features.detach().mean())
        return self.count, out.features.float().mean()
"""


def test_attributes_that_are_plain_values_are_kept_and_others_said_not_to_be(
    digits, tmp_path, capsys
):
    (tmp_path / "counting.py").write_text(PLAIN)
    through = make(sequential, digits, tmp_path / "counting.py")
    said = capsys.readouterr().out
    assert "warning: counting: its queue, a defaultdict, is no part of a checkpoint" in said
    assert said.count("warning") == 1
    losses(through, 3)
    file = io.BytesIO()
    torch.save(through.state_dict(), file)
    file.seek(0)
    restored = make(sequential, digits, tmp_path / "counting.py", seed=7)
    restored.load_state_dict(torch.load(file, weights_only=True))
    method = restored.learner.methods["counting"]
    assert method.count == 3 and len(method.seen["labels"]) == 3
    assert losses(restored, 4) == losses(through, 4)


@pytest.mark.parametrize("study", [sequential, gan], ids=["sequential", "gan"])
def test_without_weight_it_is_the_baseline(digits, path, study):
    weightless = make(study, digits, path, method_settings={"my_idea.weight": 0.0})
    plain = (
        sequential(digits, method="vanilla") if study is sequential else gan(digits, model="uncond")
    )
    assert losses(weightless, 5) == losses(plain, 5)


def test_a_gan_that_is_too_short_for_a_boundary_says_so(digits, path, capsys):
    make(gan, digits, path, steps=2)
    said = (
        "warning: my_idea: no boundary in 2 updates; boundary_every says how often there is one\n"
    )
    assert capsys.readouterr().out == said
    make(gan, digits, path, steps=3)
    assert capsys.readouterr().out == ""
