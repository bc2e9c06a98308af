"""A mistake in a method of one's own is one line that says what would be right."""

import copy
import re
from contextlib import nullcontext

import pytest
from test_arms import SEQUENTIAL, run  # noqa: F401
from test_gan import study as gan
from test_own_method import CODE
from test_sequential import study
from torture import metrics

from experiments import gan_probe, sequential_tasks
from forgetting.errors import UserError
from forgetting.methods import available, parse

LOSS = "return self.weight, F.mse_loss(self.head(features)[0].float(), self.memory)"
EVALUATE = "\n    def evaluate(self, learner, images):\n        return {}\n"
EXTEND = "\n    def extend(self, batch, drawn):\n        {}\n"
SETTING = 'Setting(0.1, number(at_least=0), "of the prediction\'s squared error")'


def with_line(line: str) -> str:
    return CODE.replace("    source =", f"    {line}\n    source =")


@pytest.mark.parametrize(
    "text,line",
    [
        (CODE + "\n    def on_task_end(self, learner):\n        pass\n",
         "on_task_end is nothing that a method has; there are setup, draw, extend, loss, "),
        (with_line('uses = "rotation_weight"'),
         'uses must be names, as in ("rotation_weight",), not \'rotation_weight\''),
        (with_line("players = (3,)"), 'players must be names, as in ("discriminator",), not (3,)'),
        (with_line('players = ("discriminatr",)'),
         "players: discriminatr is no player; did you mean discriminator?"),
        (with_line('overrides = ["lr"]'), "overrides must be settings and their values"),
        (CODE.replace(f'"weight": {SETTING}', f'"draws": {SETTING}'),
         "settings: draws is a part of every method already; take another name"),
        (CODE.replace(SETTING, "0.1"),
         "settings: weight must be a Setting(default, rule, help), not 0.1"),
        (CODE.replace("from forgetting.settings", "import nowhere\nfrom forgetting.settings"),
         "line 7: ModuleNotFoundError: No module named 'nowhere'"),
        (CODE.replace("number(at_least=0)", "number"),
         "settings: the rule of weight must be one of forgetting/settings.py's; call it"),
        (CODE.replace("Setting(0.1", "Setting(-1"),
         "settings: weight must be a number, 0 or more, and its default is -1"),
        (CODE.replace('settings = {"weight"', 'settings = 3 or {"weight"'),
         "settings must be {name: Setting(default, rule, help)}"),
        ("class A(:\n    pass", "line 1: SyntaxError: invalid syntax"),
    ],
)  # fmt: skip
def test_what_would_be_passed_over_is_refused_as_the_file_is_read(text, line, tmp_path):
    path = tmp_path / "my_idea.py"
    path.write_text(text)
    with pytest.raises(UserError, match=re.escape(f"my_idea.py: {line}")) as refused:
        parse(str(path))
    assert "\n" not in str(refused.value) and str(refused.value).count("my_idea.py") == 1


@pytest.mark.parametrize(
    "what", ['uses = ("rotatoin_weight",)', 'overrides = {"rotatoin_weight": 1}']
)
def test_a_setting_that_no_study_has_is_refused(what, tmp_path):
    path = tmp_path / "my_idea.py"
    path.write_text(with_line(what))
    line = "rotatoin_weight is no setting of a study; did you mean rotation_weight?"
    for of, arm in ((sequential_tasks.STUDY, str(path)), (gan_probe.STUDY, f"uncond+{path}")):
        with pytest.raises(UserError, match=re.escape(line)):
            of.table(arm)


@pytest.mark.parametrize(
    "more",
    [
        "\n    players = {'classifier'}\n    def _x(self):\n        pass\n",
        "\n    @property\n    def players(self):\n        return ('classifier',)\n",
        "\n    def entropy(self):\n        return 1\n    table = {1: entropy}\n",
        "\n    def __init__(self, values, seed):\n        super().__init__(values, seed)\n",
    ],
)
def test_what_does_its_work_is_taken(more, tmp_path, digits):
    path = tmp_path / "my_idea.py"
    path.write_text(
        CODE.replace(
            '"weight": Setting(', '"lr_factor": Setting(0.5, number(), "x"), "weight": Setting('
        )
        + more
    )
    of = study(digits, method=str(path))
    of.step()
    assert of.learner.methods["my_idea"].lr_factor == 0.5


def test_a_helper_that_the_file_calls_and_what_a_variant_inherits_may_have_any_name(tmp_path):
    path = tmp_path / "my_idea.py"
    path.write_text(
        CODE.replace("self.head(features)[0]", "self.predicted(features)")
        + "\n    def predicted(self, features):\n        return self.head(features)[0]\n"
    )
    assert parse(str(path)).name == "my_idea"
    assert "weight_at" in vars(available()["ssgan_ms"])  # a helper of rotation's


NET = CODE.replace("(self, learner):", "(self, learner):\n        self.net = learner.net", 1)
KEPT = "f = features.float().mean() + getattr(self, 'last', 0.0)\n        self.last = f\n        "
IN_BUFFER = "f = (features.float() + self.memory).mean()\n        self.memory = f\n        "
DRAWN = "torch.randint(n, (1,), generator=self.draws)"
LATE = "        if batch.step < 2:\n            return None\n        features ="
FEWER = 'batch.add(batch.images[:4], {"targets": batch.targets[:4]}, real=True)'
SMALLER = 'batch.extra["my_idea"] = batch.images[:4, :, :4]'


@pytest.mark.parametrize(
    "text,line",
    [
        (
            CODE + "\n    def __init__(self, values, seed):\n        self.x = 1\n",
            "my_idea.py: __init__ must call super().__init__(values, seed)",
        ),
        (NET, "my_idea: its setup makes the net itself a part of the method; hooks get it as "),
        (
            CODE.replace(LOSS, f"{KEPT}return 1.0, f"),
            "my_idea: its last still has the graph of the update it is from; keep it by .detach()",
        ),
        (
            CODE.replace(LOSS, f"{IN_BUFFER}return 1.0, f"),
            "my_idea: its memory still has the graph of the update it is from; keep it by",
        ),
        (
            CODE.replace(LOSS, "return features.float().mean(), 0.1"),
            "my_idea: its loss must be a weight and a scalar tensor, not these the other way round",
        ),
        (
            CODE.replace(LOSS, "return 1.0, out.logits.detach().mean()"),
            "my_idea: its loss at step 1 has no gradient, so that nothing learns from it",
        ),
        (
            CODE.replace("        features =", LATE),
            "my_idea: its loss is a loss at step 3, and before it was None; a CUDA graph needs the",
        ),
        (
            CODE + EXTEND.format(FEWER),
            "my_idea: its extend leaves 20 images and 16 tasks; batch.add takes a column of each",
        ),
        (
            CODE.replace("next(batches).images", "list(batches)[0].images"),
            "my_idea: its boundary takes more than 10,000 batches, which never end by themselves",
        ),
        (
            CODE + EXTEND.format(SMALLER),
            "my_idea: its extend must put images (M, 3, 8, 8) into batch.extra['my_idea'], not (4,",
        ),
        (
            CODE + EXTEND.format("batch.add(batch.images, batch.columns(batch.own), real=False)"),
            'batch.add: all rows of a classifier are real; real=batch.player == "classifier"',
        ),
        (CODE.replace(DRAWN, "3"), "my_idea: its draw must give row as a CPU tensor, not 3"),
        (CODE.replace(f'{{"row": {DRAWN}}}', "7"), "its draw must return {name: tensor}, not int"),
        (
            CODE.replace(DRAWN, "torch.zeros(1 + (step > 2), dtype=torch.int64)"),
            "my_idea: its draw gives row as torch.int64 (2,) at step 4, and before as torch.int64 "
            "(1,); a CUDA graph needs the same each time",
        ),
        (
            CODE.replace(f'{{"row": {DRAWN}}}', f'{{"row": {DRAWN}}} if step < 3 else {{}}'),
            "my_idea: its draw gives row as nothing at step 4, and before as torch.int64 (1,)",
        ),
    ],
)
def test_a_mistake_in_a_hook_names_the_method(text, line, tmp_path, digits):
    path = tmp_path / "my_idea.py"
    path.write_text(text)
    with pytest.raises(UserError, match=re.escape(line)):
        of = study(digits, method=str(path))
        for _ in range(5):  # past a boundary
            of.step()


FREE = "torch.zeros(1 + step % 2, dtype=torch.int64)"


@pytest.mark.parametrize(
    "text",
    [
        # Where nothing is captured, shapes are free, and so is when there is a loss.
        with_line("capturable = False").replace(DRAWN, FREE),
        with_line("capturable = False").replace("        features =", LATE),
        # What is only logged has no gradient.
        CODE.replace(LOSS, "return 0.0, out.logits.detach().mean()"),
    ],
)
def test_what_no_graph_captures_is_free(text, tmp_path, digits):
    path = tmp_path / "my_idea.py"
    path.write_text(text)
    of = study(digits, method=str(path))
    for _ in range(5):
        of.step()


def test_a_study_that_is_set_back_draws_as_at_first(digits):
    of = study(digits, method="replay")
    first = copy.deepcopy(of.state_dict())
    for _ in range(3):
        of.step()
    of.load_state_dict(first)
    of.step()


@pytest.mark.parametrize(
    "result,line",
    [
        ('{"accuracy/current": 0.5}', "its evaluate gives 'accuracy/current'; name it by the"),
        ('{"loss/my_idea": 0.5}', "its evaluate gives 'loss/my_idea'; name it by the method"),
        ('{"my_idea/share": "half"}', "its evaluate gives no number for my_idea/share, but str"),
        ('{"my_idea/share": images.float()}', "its evaluate gives no number for my_idea/share"),
        ("0.5", "its evaluate must return {name: number}, not float"),
    ],
)  # fmt: skip
def test_a_methods_metrics_are_numbers_under_its_own_name(result, line, tmp_path, digits):
    path = tmp_path / "my_idea.py"
    path.write_text(CODE + EVALUATE.replace("{}", result))
    with pytest.raises(UserError, match=re.escape(line)):
        study(digits, method=str(path)).evaluate()


def test_what_evaluate_measures_is_logged(tmp_path, digits):
    path = tmp_path / "my_idea.py"
    path.write_text(CODE + EVALUATE.replace("{}", '{"my_idea/bright": images.float().mean()}'))
    assert 0 < study(digits, method=str(path)).evaluate()["my_idea/bright"] < 255


def test_draws_that_are_not_the_methods_own_go_on_as_well(tmp_path, run):  # noqa: F811
    """A run that is taken up again draws what it would have drawn, whatever it draws from."""
    noise = "torch.rand(()) + random.random() + float(np.random.rand())"
    text = CODE.replace("import torch\n", "import random\n\nimport numpy as np\nimport torch\n", 1)
    (tmp_path / "my_idea.py").write_text(text.replace(LOSS, f"{LOSS} * ({noise})"))
    words = ["method=./my_idea.py", "iterations_per_task=40", "checkpoint_every=7"]
    assert run(SEQUENTIAL, *words, "results_dir=whole").returncode == 0
    assert run(SEQUENTIAL, *words, "stop_after=0.2s").returncode == 75
    done = run(SEQUENTIAL, *words, "resume=auto")
    assert re.search(r"resumed at step [1-9]", done.stdout), done.stderr
    assert metrics(tmp_path / "runs/1") == metrics(tmp_path / "whole/1")


RESERVOIR = """
from forgetting.rehearsal import Rehearsal

class Mine(Rehearsal):
    {}

    def extend(self, batch, drawn):
        images, columns = self.recall(batch, drawn["old"])
        batch.add(images, columns, real={})
        self.keep(batch, drawn["place"])
"""


@pytest.mark.parametrize(
    "settings,real,line",
    [
        ("settings = {**Rehearsal.settings}", True, "batch.add: rows whose target is 0 are fakes"),
        ("settings = {**Rehearsal.settings}", False, None),
        ("settings = {}", False, "mine.py: settings lack size and rows, which a reservoir needs"),
    ],
)
def test_old_fakes_are_no_real_images_and_a_reservoir_has_its_settings(
    settings, real, line, tmp_path, digits
):
    path = tmp_path / "mine.py"
    path.write_text(RESERVOIR.format(settings, real))
    with pytest.raises(UserError, match=re.escape(line)) if line else nullcontext():
        of = gan(digits, model=f"uncond+{path}")
        for _ in range(2):
            of.step()
