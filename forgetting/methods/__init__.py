"""Arms: which methods a run is made of. A method is a file with one `Method`, here or a user's.

An arm is `rotation`, `replay+rotation` or `./my_idea.py+ewc`; where a study has models, the first
name is one of those: `uncond+ewc`. It is a set: the order of the names changes no number.
"""

import functools
import hashlib
import importlib
import importlib.util
import os
import pkgutil
import re
import sys
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from forgetting.declared import require_whole
from forgetting.errors import UserError
from forgetting.learner import Method
from forgetting.names import meant
from forgetting.settings import Setting, validate, with_defaults

PLAIN = "vanilla"  # the method that does nothing
USERS = "user_method_"  # begins the module's name of a user's file


@dataclass(frozen=True)
class Model:
    """What a study's arm may begin with. words: for legends; kind: models of one kind differ in
    their methods alone; fixed: values of contract settings that are no choice in it."""

    words: str
    kind: str
    methods: tuple[str, ...] = ()
    fixed: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class UserFile:
    """A user's file with a method; sha256: of its bytes, in hex."""

    name: str
    path: Path
    sha256: str
    text: str


@dataclass(frozen=True)
class Arm:
    """An arm as `parse` found it.

    name: as it was written, files by their names alone; key: the same text for all ways to write
    the arm; asked: as it was written, files by their absolute paths.
    """

    name: str
    key: str
    asked: str
    model: str | None
    methods: tuple[type[Method], ...]
    files: tuple[UserFile, ...]
    fixed: Mapping[str, Any]

    @property
    def settings(self) -> dict[str, Setting]:
        """The settings of its methods: {"ewc.weight": Setting, ...}."""
        return {
            f"{method.name}.{name}": setting
            for method in self.methods
            for name, setting in method.settings.items()
        }

    @property
    def uses(self) -> set[str]:
        """The settings of the studies that its methods go by."""
        return {name for method in self.methods for name in method.uses} - self.fixed.keys()

    @property
    def overrides(self) -> dict[str, Any]:
        """The settings of the studies that its methods go with, and their values."""
        return {k: value for method in self.methods for k, value in method.overrides.items()}

    @property
    def replaces(self) -> bool:
        """Whether a method of it stands in the objective's place."""
        return any(method.replaces for method in self.methods)

    @property
    def content(self) -> str | None:
        """What tells its users' files from others of their names; None where it has none."""
        return ", ".join(sorted(f"{f.name} {f.sha256[:16]}" for f in self.files)) or None

    @property
    def record(self) -> dict[str, dict]:
        """What a run's info keeps of users' files, {} without any; never executed from there."""
        defaults = {key: setting.default for key, setting in self.settings.items()}
        overrides = {method.name: dict(method.overrides) for method in self.methods}
        kept = {
            file.name: {
                "sha256": file.sha256,
                "text": file.text,
                "defaults": {k: v for k, v in defaults.items() if k.startswith(f"{file.name}.")},
                "overrides": overrides[file.name],
            }
            for file in self.files
        }
        return {"methods": kept} if kept else {}

    def checked(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Its methods' settings, those of `given` and else their defaults. UserError where one is
        not allowed, or of a method that is not in the arm."""
        known = self.settings
        for key in given:
            method = key.partition(".")[0]
            if method not in {m.name for m in self.methods} and method in available():
                raise UserError(f"{key}: {method} is no part of {self.name}")
        return with_defaults(validate(given, known), known)

    def check(
        self, given: Mapping[str, Any], of_study: Mapping[str, Any], player: str, batch_size: int
    ) -> None:
        """Raise UserError where its methods' settings are wrong, or they do not fit the run."""
        for method in self.make(0, self.checked(given), of_study):
            if player == "classifier" and player not in method.players:
                raise UserError(
                    f"method: {method.name} is for a discriminator; set stream.name=fakes, too"
                )
            for key, value in method.overrides.items():
                if key in of_study and of_study[key] != value:
                    raise UserError(
                        f"{key}: {method.name} goes with {key}={value}, not {of_study[key]}"
                    )
            method.check(player, batch_size)

    def make(
        self, seed: int, values: Mapping[str, Any], of_study: Mapping[str, Any]
    ) -> list[Method]:
        """Its methods, each with its settings: `values` as `checked` gives them, and what it uses
        of the study's."""
        made = []
        for method in self.methods:
            own = {name: values[f"{method.name}.{name}"] for name in method.settings}
            given = {**of_study, **self.fixed}
            used = {name: given[name] for name in method.uses if name in given}
            one = method({**used, **own}, seed)
            if "draws" not in vars(one):
                raise UserError(
                    f"{method.name}.py: __init__ must call super().__init__(values, seed)"
                )
            made.append(one)
        return made


@functools.cache
def available() -> dict[str, type[Method]]:
    """Every built-in method by its name: the files in this folder."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return {name: _method_in(importlib.import_module(f"{__name__}.{name}"), name) for name in names}


def overridable() -> set[str]:
    """The settings of the studies that a built-in method may go with."""
    return {key for method in available().values() for key in method.overrides}


def parse(text: str, key: str = "method", models: Mapping[str, Model] | None = None) -> Arm:
    """The arm that `text` means. key: the setting it stands for; models: what it has to begin with.

    Raises UserError, with near names, for what is no method, for a user's file that holds none or
    two, and for a name twice.
    """
    first, *rest = text.split("+")
    model = Model("", "")
    if models:
        if first not in models:
            hint = _near(first, models)
            if first in available() or first.endswith(".py"):
                methods = [word for word in (first, *rest) if word != PLAIN]
                whole = "+".join([next(iter(models)), *methods])
                hint = f"a model stands in front, as in {key}={whole}"
            raise UserError(f"{key}: {first} is no model; {hint}")
        model, words = models[first], [*models[first].methods, *rest]
    else:
        words = [first, *rest]
    found: dict[str, type[Method]] = {}
    files = []
    for word in words:
        method, file = _find(word, key, models or {})
        if method.name in found:
            raise UserError(f"{key}: {method.name} stands twice in {text}")
        taken = {*(models or {}), *available(), "dataset", "stream"}
        if file and method.name in taken:
            raise UserError(f"{key}: the name {method.name} of {word} is taken; rename the file")
        found[method.name] = method
        files += [file] if file else []
    for name, method in found.items():
        of_model = not models or name in model.methods
        if method.replaces and not (len(found) == 1 and (of_model or not method.uniform)):
            what = "task" if method.uniform else "objective"
            whole = name if method.uniform or not models else f"{next(iter(models))}+{name}"
            raise UserError(
                f"{key}: {name} takes the {what}'s place; it stands alone, as {key}={whole}"
            )
        variants = [n for n, other in found.items() if n != name and issubclass(method, other)]
        if variants:
            raise UserError(f"{key}: {name} stands in for {variants[0]}; take one of them")

    by_path = {str(file.path): file.name for file in files}
    paths = [str(_path(word)) if word.endswith(".py") else word for word in text.split("+")]
    methods = {name: method for name, method in sorted(found.items()) if name != PLAIN}
    return Arm(
        name="+".join(by_path.get(word, word) for word in paths),
        key=key_of(first, set(methods), models),
        asked="+".join(paths),
        model=first if models else None,
        methods=tuple(methods.values()),
        files=tuple(files),
        fixed=model.fixed,
    )


def describe() -> str:
    """Every built-in method: a line, its settings, its source."""
    lines, width = [], max(map(len, available()))
    for name, method in available().items():
        first_line, *_ = (method.__doc__ or "").splitlines() or [""]
        lines.append(f"{name:{width}} {first_line}")
        lines += [
            f"{'':{width}}   {name}.{key}={setting.default}  {setting.help}: {setting.rule.wanted}"
            for key, setting in method.settings.items()
        ]
        if method.uses:
            lines.append(f"{'':{width}}   goes by {', '.join(method.uses)}")
        if method.source:
            lines.append(f"{'':{width}}   {method.source}")
    return "\n".join(lines)


def key_of(first: str, methods: set[str], models: Mapping[str, Model] | None) -> str:
    """The same text for all arms of these methods that begin with models of one kind."""
    if not models:
        return "+".join(sorted(methods)) or PLAIN
    # Of the models that the arm can be seen as, the one with the most in it: uncond+rotation is
    # ssgan.
    kind, fixed = models[first].kind, models[first].fixed
    alike = {
        name: model
        for name, model in models.items()
        if model.kind == kind and model.fixed == fixed and methods >= set(model.methods)
    }
    best = max(alike, key=lambda name: len(alike[name].methods))
    return "+".join([best, *sorted(methods - set(alike[best].methods))])


def _find(word: str, key: str, models: Iterable[str]) -> tuple[type[Method], UserFile | None]:
    if word.endswith(".py"):
        path = _path(word)
        try:
            content = path.read_bytes()
            text = content.decode()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no text"
            beside = {found.name: found for found in path.parent.glob("*.py")}
            shown = os.path.dirname(word) or "."
            hint = meant(path.name, beside).replace("mean ", f"mean {shown}/", 1)
            hint = f"; {hint}" if hint else ""
            raise UserError(f"{key}: {word} cannot be read: {reason}{hint}") from None
        if not re.fullmatch(r"[A-Za-z_][\w-]*", path.stem):
            raise UserError(f"{key}: {word}: a method's file is named by letters, digits, _ and -")
        sha256 = hashlib.sha256(content).hexdigest()
        return _user_method(path, sha256), UserFile(path.stem, path, sha256, text)
    if word in available():
        return available()[word], None
    if word in models:
        raise UserError(f"{key}: {word} is a model, and stands in front of the methods")
    hint = _near(word, available(), ", or the path of a .py file")
    if word and _path(f"{word}.py").is_file():
        hint = f"did you mean {word if '/' in word else f'./{word}'}.py?"
    elif "," in word:
        hint = f"one run has one; experiments/sweep.py makes several, by a plan's {key} = [...]"
    raise UserError(f"{key}: {word or 'nothing'} is no method; {hint}")


def _near(word: str, names: Iterable[str], others: str = "") -> str:
    return meant(word, names) or f"there are {', '.join(names)}{others}"


def _path(word: str) -> Path:
    return Path(word).expanduser().absolute()


@functools.cache
def _user_method(path: Path, sha256: str) -> type[Method]:
    """The method in a user's file of this content."""
    name = f"{USERS}{path.stem}_{sha256[:16]}"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        steps = traceback.walk_tb(error.__traceback__)
        here = [line for frame, line in steps if frame.f_code.co_filename == str(path)]
        line, what = here[-1:], " ".join(str(error).split())
        if isinstance(error, SyntaxError):
            line, what = [error.lineno], error.msg
        where = f"line {line[0]}: " if line else ""
        raise UserError(f"{path.name}: {where}{type(error).__name__}: {what}") from None
    return _method_in(module, path.stem)


def _method_in(module: ModuleType, name: str) -> type[Method]:
    """The one Method that a module defines, which gets its file's name."""
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, Method)
        and value.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise UserError(
            f"{Path(module.__file__).name}: it must have one Method in it, not {len(found)}"
        )
    require_whole(found[0], Path(module.__file__))
    found[0].name = name
    return found[0]


def place_in_users_file(error: Exception) -> str | None:
    """Where in a user's method an error arose, as "my_idea.py, line 12, in loss"; None elsewhere.
    The innermost such place."""
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        if frame.f_globals.get("__name__", "").startswith(USERS):
            file, name = Path(frame.f_code.co_filename).name, frame.f_code.co_name
            return f"{file}, line {line}, in {name}"
    return None
