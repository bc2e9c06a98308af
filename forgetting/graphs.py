"""An iteration as a CUDA graph: the host launches it by one call instead of hundreds.

The nets here are small for a GPU: most of their kernels are done before a host has launched the
next. On an H100 (NVIDIA H100 80GB HBM3, PyTorch 2.11, bf16) an iteration took 4 to 9 times as long
as its graph, and the losses were equal to the bit.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping

import torch

from forgetting.devices import all_to_device, to_device
from forgetting.errors import UserError

WARM_UP = 3  # iterations before the capture: convolutions are chosen and optimisers get their state


def iteration(compute: Callable[..., dict[str, torch.Tensor]], learner, graphs: str):
    """compute(drawn) -> losses for what was drawn on the CPU; on a GPU with graphs="auto" as a CUDA
    graph, unless a method of the learner cannot be captured, which is said."""
    if learner.device.type == "cuda" and graphs == "auto":
        against = [method.name for method in learner.methods.values() if not method.capturable]
        if not against:
            return GraphedIteration(compute, learner.optimisers.values(), learner.device)
        print(f"graphs: the iteration is not captured: {against[0]} cannot be")
    return PlainIteration(compute, learner.device)


class PlainIteration:
    """compute(drawn) with every kernel launched by itself."""

    def __init__(self, compute: Callable[..., dict[str, torch.Tensor]], device: torch.device):
        self.compute, self.device = compute, device

    def forget(self) -> None:
        """There is nothing to forget."""

    def __call__(self, drawn) -> dict[str, torch.Tensor]:
        return self.compute(all_to_device(drawn, self.device))


class GraphedIteration:
    """compute(drawn) -> {name: scalar}, captured as a graph once it has run WARM_UP times.

    compute: all of an iteration but its random draws, its optimisers' steps included. What it reads
    beside `drawn` must stay where it is in memory and be changed in place, as weights and buffers
    are; a Python number stays what it was at the capture, so what changes has to be a tensor of
    `drawn`. Where it waits for a value from the GPU, it says so and goes without a graph.
    optimisers: that `compute` steps; Adam with fused=True.
    """

    def __init__(
        self,
        compute: Callable[..., dict[str, torch.Tensor]],
        optimisers: Iterable[torch.optim.Optimizer],
        device: torch.device,
    ):
        self.compute, self.optimisers, self.device = compute, list(optimisers), device
        self.failure: str | None = None  # why it cannot be captured
        self.forget()

    def forget(self) -> None:
        """Capture anew: the tensors that an iteration works on are others now, as an optimiser's
        are when it has loaded a state."""
        self._drawn, self._graph, self._done = None, None, 0
        self._losses: dict[str, torch.Tensor] = {}

    def __call__(self, drawn) -> dict[str, torch.Tensor]:
        """One iteration. drawn: CPU tensors in dictionaries and lists, of the same names and, after
        the warm-up, in which a reservoir may still be empty, of the same shapes each time; else
        ValueError. The losses are overwritten by the next iteration."""
        on_gpu, warming = self.device.type == "cuda", self._done < WARM_UP
        self._drawn = _copied(drawn, None if warming else self._drawn, self.device)
        self._done += warming
        if not on_gpu or self.failure:
            return self.compute(self._drawn)
        if warming:
            return self._warm_up()
        if self._graph is None:
            self._capture()
        self._graph.replay()
        return self._losses

    def _warm_up(self) -> dict[str, torch.Tensor]:
        """An iteration on a stream of its own, as a capture is; in the last of them, whether it
        waits for the GPU: a capture that fails would take the process's GPU with it."""
        here, side = torch.cuda.current_stream(), torch.cuda.Stream()
        side.wait_stream(here)
        with torch.cuda.stream(side), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            if self._done == WARM_UP:
                torch.cuda.set_sync_debug_mode("warn")
            try:
                losses = self.compute(self._drawn)
            finally:
                torch.cuda.set_sync_debug_mode("default")
        here.wait_stream(side)
        # Not that the mode is a prototype, which is said once a process.
        if any("called a synchronizing" in str(warning.message) for warning in caught):
            self.failure = "it waits for a value from the GPU"
            print(f"graphs: the iteration is not captured: {self.failure}")
        return losses

    def _capture(self) -> None:
        before = [group["capturable"] for o in self.optimisers for group in o.param_groups]
        groups = [group for o in self.optimisers for group in o.param_groups]
        for optimiser in self.optimisers:
            optimiser.zero_grad()  # gradients of the graph's own, made in it
        try:
            for group in groups:
                group["capturable"] = True
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self._losses = self.compute(self._drawn)
            self._graph = graph
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"graphs: this iteration cannot be captured ({reason}); use graphs=off"
            ) from None
        finally:
            for group, capturable in zip(groups, before, strict=True):
                group["capturable"] = capturable


def _copied(drawn, buffers, device: torch.device):
    """The tensors of `drawn` on the device: new ones where there are no buffers yet, else copied
    into them."""
    if isinstance(drawn, Mapping):
        if buffers is not None and drawn.keys() != buffers.keys():
            raise ValueError(f"drawn: {list(drawn)}, and before {list(buffers)}")
        return {k: _copied(v, buffers and buffers[k], device) for k, v in drawn.items()}
    if isinstance(drawn, list | tuple):
        before = buffers or [None] * len(drawn)
        return [_copied(v, b, device) for v, b in zip(drawn, before, strict=True)]
    if not isinstance(drawn, torch.Tensor):
        raise ValueError(f"drawn: a tensor is wanted, not {drawn!r}")
    if buffers is None:
        return drawn.clone() if device.type == "cpu" else to_device(drawn, device)
    if (drawn.shape, drawn.dtype) != (buffers.shape, buffers.dtype):
        raise ValueError(
            f"drawn: {drawn.dtype} {tuple(drawn.shape)}, and before {buffers.dtype} "
            f"{tuple(buffers.shape)}"
        )
    pinned = drawn.pin_memory() if device.type == "cuda" else drawn
    return buffers.copy_(pinned, non_blocking=True)
