"""How an arm's name is read: methods by name, models in front of them, and users' files."""

import pytest
from test_gan import study as gan

from forgetting import methods
from forgetting.errors import UserError
from forgetting.methods import parse
from gan.models import MODELS


def test_methods_are_the_files_of_their_folder():
    known = {"augment", "ewc", "replay", "rotation", "shuffled", "vanilla"}
    assert set(methods.available()) >= known
    for name, method in methods.available().items():
        assert method.name == name and method.__doc__
    listed = methods.describe()
    assert "ewc.weight=100.0" in listed and "rotation_weight" in listed


@pytest.mark.parametrize(
    "text, key, names",
    [
        ("vanilla", "vanilla", []),
        ("rotation", "rotation", ["rotation"]),
        ("rotation+replay", "replay+rotation", ["replay", "rotation"]),
        ("vanilla+ewc", "ewc", ["ewc"]),
    ],
)
def test_arms_of_the_sequential_study(text, key, names):
    arm = parse(text)
    assert (arm.name, arm.key, [method.name for method in arm.methods]) == (text, key, names)


@pytest.mark.parametrize(
    "text, key, names",
    [
        ("uncond", "uncond", []),
        ("ssgan", "ssgan", ["rotation"]),
        ("uncond+rotation", "ssgan", ["rotation"]),
        ("uncond+rotation+ewc", "ssgan+ewc", ["ewc", "rotation"]),
        ("ssgan+ewc", "ssgan+ewc", ["ewc", "rotation"]),
        ("cond+rotation", "cond+rotation", ["rotation"]),
        ("rotation_only", "rotation_only", ["rotation"]),
    ],
)
def test_arms_of_the_probe_study(text, key, names):
    arm = parse(text, "model", MODELS)
    assert (arm.key, [method.name for method in arm.methods]) == (key, names)


def test_what_an_arm_uses():
    assert parse("vanilla").uses == parse("ewc").uses == set()
    assert parse("augment").uses == {"rotated_images"}
    assert {"alpha", "alpha_end", "beta"} < parse("ssgan", "model", MODELS).uses
    assert not parse("rotation_only", "model", MODELS).uses & {"alpha", "alpha_end", "beta"}
    assert parse("ewc+replay").settings.keys() == {
        *("ewc.weight", "ewc.gamma", "ewc.batches", "replay.size", "replay.rows")
    }
    assert parse("ewc").checked({"ewc.weight": 3})["ewc.weight"] == 3.0


@pytest.mark.parametrize(
    "text, line",
    [
        ("rotatoin", "method: rotatoin is no method; did you mean rotation?"),
        ("xyz", f"method: xyz is no method; there are {', '.join(methods.available())}, or "),
        ("rotation+", "method: nothing is no method; there are "),
        ("rotation+rotation", "method: rotation stands twice in rotation+rotation"),
        ("rotation+shuffled", "method: shuffled stands in for rotation; take one of them"),
        ("missing.py", "method: missing.py cannot be read: No such file"),
    ],
)
def test_a_bad_method_is_one_line(text, line):
    with pytest.raises(UserError) as refused:
        parse(text)
    assert str(refused.value).startswith(line) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "text, line",
    [
        ("unconf", "model: unconf is no model; did you mean uncond?"),
        ("replay", "model: replay is no model; a model stands in front, as in model=uncond+replay"),
        (
            "vanilla+ewc",
            "model: vanilla is no model; a model stands in front, as in model=uncond+ewc",
        ),
        ("uncond+ssgan", "model: ssgan is a model, and stands in front of the methods"),
        ("ssgan+rotation", "model: rotation stands twice in ssgan+rotation"),
    ],
)
def test_a_bad_model_is_one_line(text, line):
    with pytest.raises(UserError) as refused:
        parse(text, "model", MODELS)
    assert str(refused.value) == line


def test_the_control_without_a_generator_takes_no_methods(digits):
    with pytest.raises(UserError, match="model: rotation_only has no fakes to forget"):
        gan(digits, model="rotation_only+replay")


@pytest.mark.parametrize(
    "key, value, line",
    [
        ("ewc.weight", 1, "ewc.weight: ewc is no part of replay"),
        ("replay.sice", 1, "replay.sice: no such setting; did you mean replay.size?"),
        ("replay.size", -1, "replay.size: it must be a whole number from 0"),
    ],
)
def test_bad_settings_of_methods_are_one_line(key, value, line):
    with pytest.raises(UserError) as refused:
        parse("replay").checked({key: value})
    assert str(refused.value).startswith(line) and "\n" not in str(refused.value)


ONE = "from forgetting.learner import Method\n\nclass Mine(Method):\n    'Mine.'\n"


@pytest.mark.parametrize(
    "name, text, line",
    [
        ("none.py", "x = 1\n", "none.py: it must have one Method in it, not 0"),
        ("two.py", ONE + "\nclass Other(Method):\n    pass\n", "two.py: it must have one Method"),
        ("wrong.py", "def f(:\n", "wrong.py: line 1: SyntaxError: "),
        ("fails.py", "1 / 0\n", "fails.py: line 1: ZeroDivisionError: division by zero"),
        ("rotation.py", ONE, "method: the name rotation of "),
        ("two words.py", ONE, "method: "),
        ("latin.py", b"# \xff\n", "method: "),
    ],
)
def test_a_bad_file_is_one_line(tmp_path, name, text, line):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError) as refused:
        parse(str(tmp_path / name))
    assert str(refused.value).startswith(line) and "\n" not in str(refused.value)


def test_a_users_file_has_name_hash_and_text(tmp_path, monkeypatch):
    (tmp_path / "my_idea.py").write_text(ONE)
    monkeypatch.chdir(tmp_path)
    arm = parse("./my_idea.py+ewc")
    assert arm.name == "my_idea+ewc" and arm.key == "ewc+my_idea"
    assert arm.asked == f"{tmp_path}/my_idea.py+ewc"
    (file,) = arm.files
    assert (file.name, file.text, len(file.sha256)) == ("my_idea", ONE, 64)
    (tmp_path / "my_idea.py").write_text(ONE + "    changed = True\n")
    (other,) = parse("./my_idea.py").files
    assert other.sha256 != file.sha256 and parse("./my_idea.py").methods[0].changed


@pytest.mark.parametrize("name", ["uncond", "ssgan"])
def test_a_file_with_a_models_name_is_refused(tmp_path, name):
    (tmp_path / f"{name}.py").write_text(ONE)
    with pytest.raises(UserError, match=f"model: the name {name} of .* is taken"):
        parse(f"cond+{tmp_path}/{name}.py", "model", MODELS)
