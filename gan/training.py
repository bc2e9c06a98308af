"""A GAN as something that steps: two nets, one `Learner`, and what an iteration draws and computes.

Chen et al., arXiv 1811.11212, Section 4. The discriminator is the net under study: a classifier
whose task, real or fake, moves with the generator.
"""

from collections.abc import Iterator, Mapping
from functools import partial

import torch

from forgetting.data import Dataset
from forgetting.devices import all_to_device
from forgetting.graphs import iteration
from forgetting.learner import Batch, Learner, Method, adam
from forgetting.networks import build, scale_images
from forgetting.planting import plant
from forgetting.seeding import derived_seed, generator
from gan import losses
from gan.models import ALONE
from gan.networks import LATENT, Discriminator, Generator


class GAN:
    """Nets, images, latents and methods have generators of their own, so that one seed gives every
    arm the same start and the same images.

    kind: of `gan.models`; ALONE: there is no generator, and the discriminator's net learns what its
    methods ask for, from the last `alone` real images of a batch.
    plant_updates: of the discriminator on the images' classes, at first (forgetting/planting.py).
    fresh: whether it begins anew; else `load_state_dict` follows, and nothing is planted.
    The other arguments are the experiment's settings (experiments/gan_probe.py).
    """

    def __init__(
        self,
        dataset: Dataset,
        device: torch.device,
        autocast,
        kind: str,
        methods: list[Method],
        alone: int,
        *,
        seed: int,
        steps: int,
        batch_size: int,
        generator_width: int,
        discriminator_width: int,
        spectral_norm: bool,
        loss: str,
        d_steps: int,
        lr: float,
        adam_betas: tuple[float, float],
        graphs: str = "auto",
        plant_updates: int = 0,
        fresh: bool = True,
    ):
        self.dataset, self.device, self.autocast = dataset, device, autocast
        self.conditional, self.alone = kind == "class", alone
        self.steps, self.batch_size, self.d_steps, self.loss = steps, batch_size, d_steps, loss
        self.position = 0
        size = dataset.train_images.shape[-1]
        classes = len(dataset.classes) if self.conditional else None
        self.untrained = partial(
            build,
            derived_seed(seed, "discriminator"),
            Discriminator,
            size=size,
            width=discriminator_width,
            spectral_norm=spectral_norm,
            classes=classes,
        )
        self.discriminator = self.untrained().to(device)
        optimiser = {"lr": lr, "adam_betas": adam_betas}
        if plant_updates and fresh:
            of_training = {"seed": seed, "batch_size": batch_size, "autocast": autocast}
            plant(self.discriminator, dataset, plant_updates, **of_training, **optimiser)
        self.learner = Learner(
            self.discriminator,
            None if kind == ALONE or any(m.replaces for m in methods) else self._objective,
            methods,
            device,
            autocast,
            player="discriminator",
            seed=seed,
            steps=steps,
            updates=steps * d_steps,
            batch_size=batch_size,
            image_size=size,
            spectral_norm=spectral_norm,
            classes=len(dataset.classes),
            **optimiser,
        )
        self.generator = None
        if kind != ALONE:
            self.generator = build(
                derived_seed(seed, "generator"),
                Generator,
                size=size,
                width=generator_width,
                modulation=kind,
                classes=classes,
            ).to(device)
            self.learner.optimisers["generator"] = adam(self.generator.parameters(), lr, adam_betas)
        self.draws = {name: generator(seed, name) for name in ("images", "latent", "labels")}
        self.boundary_draws = generator(seed, "boundary")
        self.iterate = iteration(self._compute, self.learner, graphs)
        self.real_or_fake = (torch.arange(2 * batch_size) < batch_size).float().to(device)

    def step(self) -> dict[str, torch.Tensor]:
        """`d_steps` updates of the discriminator and one of the generator; the losses as scalars,
        the discriminator's of its last update."""
        self.learner.train()
        if self.generator is not None:
            self.generator.train()
        logged = self.iterate(self._draw())
        self.position += 1
        return logged

    def at_boundaries(self) -> list[str]:
        """The names of the methods that do something where a task ends."""
        return [
            name
            for name, method in self.learner.methods.items()
            if type(method).boundary is not Method.boundary and method.takes_part("discriminator")
        ]

    def boundary(self) -> None:
        """Let the methods do what they do where a task ends."""
        others = [] if self.generator is None else [self.generator]
        self.learner.boundary(self._boundary_batches, *others)

    # ---- all that is random in a step, on the CPU ----

    def _draw(self) -> list[dict]:
        """What each update is made of."""
        if self.generator is None:
            rows = self._draw_rows(self.draws)[-self.alone :]
            of_methods = self.learner.draw("discriminator", len(rows), self.position)
            return [{**self.dataset.drawn(rows), "methods": of_methods}]
        return [
            *(self._draw_update("discriminator") for _ in range(self.d_steps)),
            self._draw_update("generator"),
        ]

    def _draw_update(self, player: str) -> dict:
        of_player = self._draw_batch if player == "discriminator" else self._draw_fake
        drawn = of_player(self.draws)
        return {**drawn, "methods": self.learner.draw(player, self.batch_size, self.position)}

    def _draw_rows(self, draws: Mapping[str, torch.Generator]) -> torch.Tensor:
        n, images = self.batch_size, len(self.dataset.train_labels)
        return torch.randint(images, (n,), generator=draws["images"])

    def _draw_batch(self, draws: Mapping[str, torch.Generator]) -> dict[str, torch.Tensor]:
        """Of the discriminator."""
        return {**self.dataset.drawn(self._draw_rows(draws)), **self._draw_fake(draws)}

    def _draw_fake(self, draws: Mapping[str, torch.Generator]) -> dict[str, torch.Tensor]:
        n = self.batch_size
        drawn = {"latents": torch.randn(n, LATENT, generator=draws["latent"])}
        if self.conditional:
            classes = len(self.dataset.classes)
            drawn["labels"] = torch.randint(classes, (n,), generator=draws["labels"])
        return drawn

    # ---- what is left of it, on the device ----

    def _compute(self, drawn: list[dict]) -> dict[str, torch.Tensor]:
        *of_discriminator, of_generator = drawn if self.generator is not None else [*drawn, None]
        logged = {}
        for update in of_discriminator:
            logged |= self.learner.update(self.discriminator_batch(update), update["methods"])
        if of_generator:
            batch = self.generator_batch(of_generator)
            logged |= self.learner.update(batch, of_generator["methods"])
        return logged

    def discriminator_batch(self, drawn: Mapping[str, torch.Tensor]) -> Batch:
        """Real images of `rows`, and behind them fakes of as many `latents`, without their
        graph."""
        n = len(drawn["rows"])
        images = scale_images(self.dataset.images_of(drawn))
        labelled = self.conditional or self.generator is None
        labels = self.dataset.train_labels[drawn["rows"]] if labelled else None
        fake = []
        if self.generator is not None:
            with torch.no_grad(), self.autocast():
                images_of_it = self.generator(drawn["latents"], drawn.get("labels"))
            images, fake = torch.cat([images, images_of_it.float()]), [slice(n, 2 * n)]
            labels = torch.cat([labels, drawn["labels"]]) if self.conditional else None
        return Batch(
            images=images,
            targets=self.real_or_fake[: len(images)].clone(),
            tasks=None,
            labels=labels,
            real=[slice(0, n)],
            fake=fake,
            player="discriminator",
            step=self.position,
        )

    def generator_batch(self, drawn: Mapping[str, torch.Tensor]) -> Batch:
        """Fakes of `latents`, with their graph."""
        with self.autocast():
            fake = self.generator(drawn["latents"], drawn.get("labels"))
        return Batch(
            images=fake.float(),
            targets=self.real_or_fake[self.batch_size :].clone(),
            tasks=None,
            labels=drawn.get("labels"),
            real=[],
            fake=[slice(0, len(fake))],
            player="generator",
            step=self.position,
        )

    def _objective(self, batch: Batch, logits: torch.Tensor) -> dict[str, torch.Tensor]:
        """-V for the discriminator, V for the generator."""
        fake = _rows(logits, batch.fake)
        if batch.player == "generator":
            return {"loss/g": losses.generator_loss(fake, self.loss)}
        real = _rows(logits, batch.real)
        return {"loss/d": losses.discriminator_loss(real, fake, self.loss)}

    def _boundary_batches(self) -> Iterator[Batch]:
        """Batches as the discriminator has them now, drawn for themselves."""
        draws = dict.fromkeys(self.draws, self.boundary_draws)
        while True:
            yield self.discriminator_batch(all_to_device(self._draw_batch(draws), self.device))

    # ---- everything the next step depends on ----

    def _all_draws(self) -> dict[str, torch.Generator]:
        return {**self.draws, "boundary": self.boundary_draws}

    def state_dict(self) -> dict:
        return {
            "learner": self.learner.state_dict(),
            "generator": self.generator.state_dict() if self.generator is not None else None,
            "draws": {name: draws.get_state() for name, draws in self._all_draws().items()},
        }

    def load_state_dict(self, state: dict, position: int) -> None:
        self.position = position
        self.iterate.forget()
        self.learner.load_state_dict(state["learner"])
        if self.generator is not None:
            self.generator.load_state_dict(state["generator"])
        for name, draws in self._all_draws().items():
            draws.set_state(state["draws"][name])


def _rows(logits: torch.Tensor, slices: list[slice]) -> torch.Tensor:
    return torch.cat([logits[some] for some in slices])
