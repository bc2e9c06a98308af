"""An iteration from static buffers, as a CUDA graph has it; the graph itself is in test_gpu."""

import functools

import pytest
import torch
from torch import nn

from experiments import benchmarks
from forgetting.graphs import WARM_UP, GraphedIteration
from forgetting.methods import PLAIN, available
from forgetting.networks import normalise_spectrally

OPPONENTS = {"stream.name": "fakes", "stream.recording": "digits"}
CPU = torch.device("cpu")


class Toy:
    """Two nets that train each other, with all that GANs have: batch norm, spectral norm, a net
    that is frozen for a while, a weight that changes."""

    def __init__(self, device: torch.device):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.generator = nn.Sequential(
                *(nn.Conv2d(4, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
                nn.Conv2d(8, 3, 3, padding=1),
            ).to(device)
            self.discriminator = nn.Sequential(
                *(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 1)),
            ).to(device)
            normalise_spectrally(self.discriminator)
            self.images = torch.rand(50, 3, 8, 8).to(device)
        adam = functools.partial(torch.optim.Adam, lr=1e-3, fused=True)
        self.optimisers = [adam(net.parameters()) for net in (self.discriminator, self.generator)]
        self.draws = torch.Generator().manual_seed(0)
        self.iteration = 0

    def draw(self) -> dict:
        self.iteration += 1
        return {
            "rows": torch.randint(50, (16,), generator=self.draws),
            "of": [{"latents": torch.randn(16, 4, 8, 8, generator=self.draws)} for _ in range(2)],
            "weight": torch.tensor(1 / self.iteration),
        }

    def compute(self, drawn: dict) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            fake = self.generator(drawn["of"][0]["latents"])
        both = self.discriminator(torch.cat([self.images[drawn["rows"]], fake]))
        losses = {"d": (both[16:] - both[:16]).mean() + drawn["weight"] * both.square().mean()}
        self._update(0, losses["d"])
        self.discriminator.requires_grad_(False)
        losses["g"] = -self.discriminator(self.generator(drawn["of"][1]["latents"])).mean()
        self._update(1, losses["g"])
        self.discriminator.requires_grad_(True)
        return {name: loss.detach() for name, loss in losses.items()}

    def _update(self, i: int, loss: torch.Tensor) -> None:
        self.optimisers[i].zero_grad()
        loss.backward()
        self.optimisers[i].step()

    def graphed(self, device: torch.device) -> GraphedIteration:
        return GraphedIteration(self.compute, self.optimisers, device)

    def everything(self) -> list[torch.Tensor]:
        parts = (self.discriminator, self.generator, *self.optimisers)
        states = [part.state_dict() for part in parts]
        moments = [t for s in states[2:] for of_one in s["state"].values() for t in of_one.values()]
        return [t.cpu() for s in states[:2] for t in s.values()] + [t.cpu() for t in moments]


def test_from_static_buffers_it_is_the_plain_iteration_to_the_bit():
    plain, static = Toy(CPU), Toy(CPU)
    graphed = static.graphed(CPU)
    places = set()
    for i in range(WARM_UP + 3):
        losses, others = plain.compute(plain.draw()), graphed(static.draw())
        assert losses == others
        if i >= WARM_UP:
            places.add(graphed._drawn["of"][1]["latents"].data_ptr())
    assert len(places) == 1
    assert all(map(torch.equal, plain.everything(), static.everything()))


ARMS = [
    *(("sequential_tasks", {"method": method}) for method in ("vanilla", "rotation", "augment")),
    *(
        ("gan_probe", {"model": model})
        for model in ("uncond", "cond", "ssgan", "ssgan_sbn", "rotation_only")
    ),
    ("gan_probe", {"model": "ssgan", "alpha_end": 0.0, "d_steps": 2}),
    ("gan_probe", {"model": "uncond", "regularizer": "gradient_penalty", "spectral_norm": False}),
    ("sequential_tasks", {"method": "replay+shuffled"}),
    ("sequential_tasks", {"method": "rotation+ewc"}),
    ("gan_probe", {"model": "uncond+replay+ewc"}),
    # Each method of the project, past a boundary, in both studies.
    *(("sequential_tasks", {"method": name, **OPPONENTS}) for name in available()),
    *(
        ("gan_probe", {"model": f"uncond+{name}"})
        for name, method in available().items()
        if name != PLAIN and not method.uniform
    ),
]
every_arm = pytest.mark.parametrize(
    "study, arm", ARMS, ids=lambda x: x if isinstance(x, str) else str(x.get("method", x))
)


def narrow(study: str, arm: dict, device: torch.device, **settings):
    """A study of few channels whose task moves on with every second update."""
    settings |= {"batch_size": 8, "dataset.size": 8, **arm}
    if study == "sequential_tasks":
        settings |= {"width": 4, "rotated_images": 2, "iterations_per_task": 2}
    else:
        settings |= {"discriminator_width": 4, "generator_width": 4, "boundary_every": 2}
    return benchmarks.learner(study, "quick", device, **settings)


@every_arm
def test_a_study_steps_from_static_buffers_as_it_does_plainly(study, arm):
    plain, static = (narrow(study, arm, CPU) for _ in range(2))
    stepping = static.gan if study == "gan_probe" else static
    optimisers = static.learner.optimisers.values()
    stepping.iterate = GraphedIteration(stepping._compute, optimisers, CPU)
    for _ in range(WARM_UP + 2):
        losses, others = plain.step(), static.step()
        assert losses == others and losses
    states = [study.learner.state_dict()["net"] for study in (plain, static)]
    assert all(map(torch.equal, *(state.values() for state in states)))


def test_what_is_drawn_must_keep_its_shape():
    graphed = GraphedIteration(lambda drawn: {"x": drawn["a"].sum()}, [], CPU)
    first = torch.arange(3)
    graphed({"a": torch.arange(2)})  # in the warm-up it may still have another
    for _ in range(WARM_UP - 1):
        graphed({"a": first})
    graphed({"a": torch.ones(3, dtype=torch.long)})
    assert first.tolist() == [0, 1, 2]  # the buffer is a copy
    for other in ({"a": torch.arange(4)}, {"a": torch.ones(3)}, {"b": first}, {"a": 3}):
        with pytest.raises(ValueError, match="drawn: "):
            graphed(other)
