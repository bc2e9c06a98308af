"""One net that learns while its task moves, and what is tried against its forgetting.

A GAN's discriminator is a classifier whose task moves: both studies train a `Learner`. One update:
draw all that is random (on the CPU), extend the batch, ONE forward pass, losses, one step.
"""

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from forgetting.batch import Batch, Outputs
from forgetting.errors import UserError
from forgetting.networks import buffers_kept, build, initialised, normalise_spectrally, scale_images
from forgetting.returned import Before, at_most, explain_kept_graph, metrics_of, require_rows
from forgetting.seeding import derived_seed, generator
from forgetting.settings import Setting

MOST_BATCHES = 10_000  # that a method may take at a boundary
# Whose update it is -> what ends the name of a method's loss.
PLAYERS = {"classifier": "", "discriminator": "_d", "generator": "_g"}


class Method(nn.Module):
    """An idea against forgetting: what it adds to an update. docs/own_method.md shows one whole.

    Parameters, buffers and generators that are attributes are its part of the checkpoint. They are
    made in `setup` and stay on the device where they are made.
    """

    name: ClassVar[str]  # of its file
    source: ClassVar[str] = ""
    words: ClassVar[str] = ""  # for legends; else its name
    settings: ClassVar[Mapping[str, Setting]] = {}  # each an attribute, `name.setting` for users
    uses: ClassVar[tuple[str, ...]] = ()  # settings of the studies that it goes by, attributes too
    players: ClassVar[tuple[str, ...]] = ("classifier", "discriminator")  # whose updates it joins
    purpose: ClassVar[str | None] = None  # of its random numbers; None: its own
    overrides: ClassVar[Mapping[str, Any]] = {}  # settings of the studies that it goes with
    replaces: ClassVar[bool] = False  # whether its loss stands in the objective's place
    uniform: ClassVar[bool] = False  # whether it has uniform labelled batches in the task's place
    sees_all: ClassVar[bool] = False  # whether its extend comes behind the others'
    capturable: ClassVar[bool] = True  # whether a CUDA graph may hold extend, loss and after_...
    lr_factor: float = 1.0  # what the learning rate of the net, and of heads, is multiplied by

    def __init__(self, values: Mapping[str, Any], seed: int):
        super().__init__()
        for name, value in values.items():
            setattr(self, name, value)
        self.seed = seed
        self.draws = generator(seed, self.purpose or f"method {self.name}")

    def takes_part(self, player: str) -> bool:
        """Whether it does anything in this player's updates: without weight it does not."""
        return player in self.players and getattr(self, "weight", 1.0) != 0

    def check(self, player: str, batch_size: int) -> None:
        """Raise UserError where its settings do not fit a run."""

    def setup(self, learner: "Learner") -> None:
        """Make parameters and buffers, on `learner.device`."""

    def draw(self, player: str, n: int, step: int) -> dict[str, torch.Tensor]:
        """All that is random in an update, as CPU tensors of the same shapes each time. n: the
        stream's own rows of a kind, real or fake. The other hooks get it on the device."""
        return {}

    def extend(self, batch: Batch, drawn: Mapping[str, torch.Tensor]) -> None:
        """Add rows to the batch, or put others in place of some."""

    def loss(
        self, learner: "Learner", batch: Batch, out: Outputs, drawn: Mapping[str, torch.Tensor]
    ) -> tuple[float | torch.Tensor, torch.Tensor] | None:
        """(weight, scalar): the scalar is logged, weight times it is added to the objective."""

    def after_objective(self, learner: "Learner", batch: Batch) -> None:
        """Read the gradients of the objective alone; those of methods' losses come after it, in a
        backward pass of their own."""

    def after_backward(self, learner: "Learner", batch: Batch) -> None:
        """Change the gradients before the step."""

    def after_step(self, learner: "Learner", batch: Batch) -> None:
        """Change or read the weights after it."""

    def boundary(self, learner: "Learner", batches: Iterator[Batch]) -> None:
        """The task is about to change. batches: of the task that ends, as many as are taken."""

    def score(self, net: nn.Module, features: torch.Tensor) -> torch.Tensor:
        """The logits (N,) for "real" of features (N, width), where it replaces the objective."""
        raise UserError(f"{self.name}: it replaces the objective, so it needs score(net, features)")

    def evaluate(self, learner: "Learner", images: torch.Tensor) -> dict[str, float]:
        """Metrics of held-out images (N, 3, S, S) uint8."""
        return {}

    def get_extra_state(self) -> dict[str, Any]:
        """Its generators' states, and attributes that are plain values: a list of past losses."""
        own = {name: value for name, value in vars(self).items() if name not in _OF_MODULES}
        draws = {k: v.get_state() for k, v in own.items() if isinstance(v, torch.Generator)}
        return draws | {k: copy.deepcopy(v) for k, v in own.items() if _is_plain(v)}

    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        for name, value in state.items():
            there = getattr(self, name, None)
            if isinstance(there, torch.Generator):
                there.set_state(value)
            elif isinstance(there, torch.Tensor):
                setattr(self, name, value.to(there.device, copy=True))
            else:
                setattr(self, name, copy.deepcopy(value))

    def unsaved(self) -> dict[str, str]:
        """Attributes that are no part of a checkpoint and may well be changed, and their types."""
        constant = torch.Generator | torch.device | torch.dtype | Learner
        return {
            name: type(value).__name__
            for name, value in vars(self).items()
            if name not in _OF_MODULES
            and not (_is_plain(value) or callable(value) or isinstance(value, constant))
        }


_OF_MODULES = vars(nn.Module()).keys()


def _is_plain(value: Any) -> bool:
    """Whether a checkpoint can hold it: numbers, text and tensors, and lists and dicts of them. A
    tensor with a graph is of the update at hand alone."""
    if isinstance(value, torch.Tensor):
        return type(value) is torch.Tensor and value.grad_fn is None
    # Not what is derived of these: a checkpoint that held a defaultdict could not be read.
    if type(value) in (list, tuple, set):
        return all(_is_plain(part) for part in value)
    if type(value) is dict:
        return all(_is_plain(part) for pair in value.items() for part in pair)
    return value is None or type(value) in (bool, int, float, str)


def adam(parameters: Iterable, lr: float, betas: Iterable[float]) -> torch.optim.Adam:
    """Fused: one pass over the weights instead of a dozen."""
    return torch.optim.Adam(parameters, lr=lr, betas=tuple(betas), fused=True)


class Learner:
    """One net, its objective, its optimiser and its methods.

    net: on `device`; net(images) are features, net.logits(features, condition) the objective's
    logits, where the condition is the column of the batch that `net.condition` names.
    objective: (batch, logits) -> {name: scalar}, or None where methods are all there is to learn
    (`stands_in` is one that replaces it for the same task).
    player: classifier or discriminator. steps: of the run; updates: of this net in all of them.
    classes: of the images. one_for_all: whether one output has to serve tasks that contradict each
    other.
    """

    def __init__(
        self,
        net: nn.Module,
        objective: Callable[[Batch, torch.Tensor], dict[str, torch.Tensor]] | None,
        methods: Iterable[Method],
        device: torch.device,
        autocast,
        *,
        player: str,
        seed: int,
        steps: int,
        updates: int,
        batch_size: int,
        image_size: int,
        spectral_norm: bool,
        lr: float,
        adam_betas: tuple[float, float],
        one_for_all: bool = False,
        classes: int = 0,
    ):
        self.net, self.objective, self.device, self.autocast = net, objective, device, autocast
        self.player, self.seed, self.steps, self.updates = player, seed, steps, updates
        self.batch_size, self.image_size = batch_size, image_size
        self.spectral_norm, self.one_for_all = spectral_norm, one_for_all
        self.lr, self.adam_betas, self.classes = lr, adam_betas, classes
        self.methods: dict[str, Method] = {}
        self._before = Before()
        for method in methods:
            if method.name in self.methods:
                raise UserError(f"{method.name}: there are two methods of that name")
            self.methods[method.name] = method
            method.setup(self)
            if any(p is own for p in net.parameters() for own in method.parameters()):
                raise UserError(
                    f"{method.name}: its setup makes the net itself a part of the method; hooks "
                    f"get it as learner.net, and copy.deepcopy(learner.net) is an old copy"
                )
            for attribute, kind in method.unsaved().items():
                print(
                    f"warning: {method.name}: its {attribute}, a {kind}, is no part of a "
                    f"checkpoint; a run that is taken up again has what setup makes of it"
                )
        standing_in = (m for m in self.methods.values() if m.replaces and not m.uniform)
        self.stands_in = next(standing_in, None)
        of_all = [p for module in self._modules() for p in module.parameters()]
        self.trained = [p for p in of_all if p.requires_grad]  # a method may freeze some
        rate = lr * math.prod(method.lr_factor for method in self.methods.values())
        self.optimisers = {player: adam(self.trained, rate, adam_betas)}

    def bare(self, net: nn.Module) -> "Learner":
        """A learner of another such net, all of it, without methods and with an optimiser that
        begins anew. What stands in for the objective is kept: a copy, as far as it has learnt."""
        kept = [copy.deepcopy(self.stands_in)] if self.stands_in else []
        again = Learner(
            net.requires_grad_(True),
            self.objective,
            kept,
            self.device,
            self.autocast,
            player=self.player,
            seed=self.seed,
            steps=self.steps,
            updates=self.updates,
            batch_size=self.batch_size,
            image_size=self.image_size,
            spectral_norm=self.spectral_norm,
            lr=self.lr,
            adam_betas=self.adam_betas,
            classes=self.classes,
        )
        for method in kept:  # which its setup has made anew
            method.load_state_dict(self.stands_in.state_dict())
        return again

    def head(self, method: Method, outputs: int) -> nn.Module:
        """A linear head on the features, drawn from a seed of the method's own."""

        def make():
            layer = nn.Sequential(initialised(nn.Linear(self.net.width, outputs), 1.0))
            if self.spectral_norm:
                normalise_spectrally(layer)
            return layer

        return build(derived_seed(self.seed, f"head {method.name}"), make).to(self.device)

    # ---- an update ----

    def draw(self, player: str, n: int, step: int) -> dict[str, dict[str, torch.Tensor]]:
        """What methods draw for an update, on the CPU, by their names."""
        found = {method.name: method.draw(player, n, step) for method in self._joining(player)}
        for name, drawn in found.items():
            self._before.drawn(drawn, self.methods[name], player, step)
        return found

    def losses(self, batch: Batch, drawn: Mapping[str, Mapping]) -> dict[str, tuple]:
        """Name -> (weight, scalar): the objective's and the methods', from one forward pass.

        Raises UserError for a method's loss that is no scalar.
        """
        joining = self._joining(batch.player)
        for method in sorted(joining, key=lambda method: method.sees_all):
            method.extend(batch, drawn[method.name])
            require_rows(batch, method.name)
        parts = [batch.images, *batch.extra.values()]
        images = torch.cat(parts) if batch.extra else batch.images
        with self.autocast():
            features = self.net(images.contiguous(memory_format=torch.channels_last))
            first, *others = features.split([len(part) for part in parts])
            logits = self.logits(first, batch) if self.objective else None
            out = Outputs(first, logits, dict(zip(batch.extra, others, strict=True)))
            found = {}
            if self.objective:
                found = {k: (1.0, v) for k, v in self.objective(batch, logits).items()}
            for method in joining:
                term = method.loss(self, batch, out, drawn[method.name])
                if self._before.loss(term, method, batch, first.requires_grad):
                    found[_loss_name(method, batch.player)] = term
        return found

    def logits(self, features: torch.Tensor, batch: Batch) -> torch.Tensor:
        """The objective's logits (N,) float32."""
        return self.score(features, batch.column(self.net.condition))

    def score(self, features: torch.Tensor, condition: torch.Tensor | None) -> torch.Tensor:
        """Logits (N,) float32 for "real", or "the class of its task", of features (N, width): the
        net's, or of what stands in for the objective. condition: of the rows, as `losses` has it.
        """
        if self.stands_in:
            return self.stands_in.score(self.net, features).float()
        return self.net.logits(features, condition)

    def update(self, batch: Batch, drawn: Mapping[str, Mapping]) -> dict[str, torch.Tensor]:
        """One step of the batch's player; its losses without their weights, detached."""
        frozen = batch.player != self.player
        if frozen:  # the net's weights take no gradient: a third of its backward pass saved
            self._requires_grad(False)
        losses = self.losses(batch, drawn)
        optimiser = self.optimisers[batch.player]
        optimiser.zero_grad()
        joining = self._joining(batch.player)
        self._backward(losses, joining, batch)
        for method in joining:
            method.after_backward(self, batch)
        optimiser.step()
        for method in joining:
            method.after_step(self, batch)
        if frozen:
            self._requires_grad(True)
        return {name: value.detach() for name, (_, value) in losses.items()}

    def _backward(self, losses: Mapping[str, tuple], joining: list[Method], batch: Batch) -> None:
        """The gradients of all losses: in one pass, unless a method reads the objective's alone."""
        readers = [m for m in joining if type(m).after_objective is not Method.after_objective]
        of_methods = {_loss_name(method, batch.player) for method in joining if readers}
        first = [weight * v for name, (weight, v) in losses.items() if name not in of_methods]
        others = [weight * v for name, (weight, v) in losses.items() if name in of_methods]
        try:
            if first:
                sum(first).backward(retain_graph=bool(others))
            for method in readers:
                method.after_objective(self, batch)
            if others:
                sum(others).backward()
        except RuntimeError as error:
            explain_kept_graph(joining, error)
            raise

    def boundary(self, batches: Callable[[], Iterator[Batch]], *others: nn.Module) -> None:
        """Tell the methods that the task is about to change. batches: makes batches of the task
        that ends. The buffers of the net and of `others` are left as they were."""
        with buffers_kept(self.net, *others):
            for method in self.methods.values():
                if method.takes_part(self.player):
                    method.boundary(self, at_most(MOST_BATCHES, batches(), method.name))

    def _joining(self, player: str) -> list[Method]:
        return [method for method in self.methods.values() if method.takes_part(player)]

    def _requires_grad(self, yes: bool) -> None:
        for parameter in self.trained:
            parameter.requires_grad_(yes)

    def _modules(self) -> list[nn.Module]:
        """The net, and methods for their heads."""
        return [self.net, *self.methods.values()]

    # ---- evaluation ----

    def train(self, yes: bool = True) -> None:
        for module in self._modules():
            module.train(yes)

    @torch.inference_mode()
    def read(self, batches: Iterable[torch.Tensor], function: Callable) -> list:
        """function(images as `scale_images` gives them) of each batch (N, 3, S, S) uint8, with the
        net as it is in evaluation."""
        self.train(False)
        results = []
        for images in batches:
            with self.autocast():
                results.append(function(scale_images(images.to(self.device))))
        return results

    def evaluate(self, images: torch.Tensor) -> dict[str, float]:
        """The methods' own metrics of held-out images (N, 3, S, S) uint8."""
        found = {}
        for method in self.methods.values():
            found |= metrics_of(method.name, method.evaluate(self, images))
        return found

    # ---- everything the next update depends on ----

    def state_dict(self) -> dict:
        return {
            "net": self.net.state_dict(),
            "methods": {name: method.state_dict() for name, method in self.methods.items()},
            "optimisers": {name: o.state_dict() for name, o in self.optimisers.items()},
        }

    def load_state_dict(self, state: dict) -> None:
        self._before.forget()
        self.net.load_state_dict(state["net"])
        for name, method in self.methods.items():
            method.load_state_dict(state["methods"][name])
        for name, optimiser in self.optimisers.items():
            optimiser.load_state_dict(state["optimisers"][name])


def _loss_name(method: Method, player: str) -> str:
    return f"loss/{method.name}{PLAYERS[player]}"
