"""What a method's hooks give back, checked: a mistake in them is one line that names the method."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import torch
from torch import nn

from forgetting.batch import COLUMNS, Batch
from forgetting.errors import UserError


def require_loss(term: Any, method: str, step: int, learns: bool) -> None:
    """UserError unless `term` is what `Method.loss` is to return. learns: whether the features
    that it was given have a gradient, in which case its loss has to have one."""
    pair = isinstance(term, tuple) and len(term) == 2
    loss = term[1] if pair else term
    what = tuple(loss.shape) if isinstance(loss, torch.Tensor) else type(loss).__name__
    if not pair:
        what = f"{type(loss).__name__} alone"
    elif isinstance(term[0], torch.Tensor) and not isinstance(loss, torch.Tensor):
        what = "these the other way round"
    if not pair or not isinstance(loss, torch.Tensor) or loss.dim():
        wanted = "a weight and a scalar tensor"
        raise UserError(f"{method}: its loss must be {wanted}, not {what}, at step {step + 1}")
    is_logged_alone = isinstance(term[0], int | float) and term[0] == 0
    if learns and not is_logged_alone and not loss.requires_grad:
        raise UserError(
            f"{method}: its loss at step {step + 1} has no gradient, so that nothing learns from "
            f"it; until there is something, a buffer that is 0 may weigh it"
        )


def _drawn(drawn: Any, method: str) -> dict[str, str]:
    """Name -> kind and shape; UserError unless it is what `Method.draw` is to return."""
    if not isinstance(drawn, Mapping):
        kind = type(drawn).__name__
        raise UserError(f"{method}: its draw must return {{name: tensor}}, not {kind}")
    for name, value in drawn.items():
        if not isinstance(value, torch.Tensor) or value.is_cuda:
            what = "a tensor on the GPU" if isinstance(value, torch.Tensor) else repr(value)
            raise UserError(f"{method}: its draw must give {name} as a CPU tensor, not {what}")
    return {name: f"{value.dtype} {tuple(value.shape)}" for name, value in drawn.items()}


class Before:
    """What methods gave in the updates before, by method and player: a CUDA graph, in which a
    method that is `capturable` is captured, needs the same each time. A CPU says so, too."""

    def __init__(self):
        self.forget()

    def forget(self) -> None:
        """Before an update that follows on no other, as when a state is loaded."""
        self._kinds: dict[tuple[str, str], dict | None] = {}
        self._has_loss: dict[tuple[str, str], bool] = {}

    def drawn(self, drawn: Any, method: Any, player: str, step: int) -> None:
        """UserError unless `drawn` is what `Method.draw` is to return."""
        name, key = method.name, (method.name, player)
        kinds, before = _drawn(drawn, name), self._kinds.get(key)
        # They count from the second draw on, for a reservoir is empty at the first.
        self._kinds[key] = kinds if method.capturable and key in self._kinds else None
        if before is not None and before != kinds:
            what = next(n for n in {**before, **kinds} if before.get(n) != kinds.get(n))
            now, then = kinds.get(what, "nothing"), before.get(what, "nothing")
            raise UserError(
                f"{name}: its draw gives {what} as {now} at step {step + 1}, and before as {then}; "
                f"a CUDA graph needs the same each time"
            )

    def loss(self, term: Any, method: Any, batch: Batch, learns: bool) -> bool:
        """Whether there is one; UserError unless it is what `Method.loss` is to return. learns:
        whether the features that it was given have a gradient."""
        has, name = term is not None, method.name
        if method.capturable and has != self._has_loss.setdefault((name, batch.player), has):
            now, then = ("a loss", "None") if has else ("None", "a loss")
            raise UserError(
                f"{name}: its loss is {now} at step {batch.step + 1}, and before it was {then}; a "
                f"CUDA graph needs the same each time: let a buffer that is 0 weigh it"
            )
        if has:
            require_loss(term, name, batch.step, learns)
        return has


def require_rows(batch: Batch, method: str) -> None:
    """UserError unless the batch that a method's `extend` leaves is whole."""
    n, shape = len(batch.images), tuple(batch.images.shape[1:])
    for name in COLUMNS:
        column = batch.column(name)
        if column is not None and len(column) != n:
            raise UserError(
                f"{method}: its extend leaves {n} images and {len(column)} {name}; batch.add takes "
                f"a column of each, as batch.columns(rows) gives them"
            )
    for name, rows in batch.extra.items():
        if rows.dim() != 4 or tuple(rows.shape[1:]) != shape:
            raise UserError(
                f"{method}: its extend must put images (M, {', '.join(map(str, shape))}) into "
                f"batch.extra[{name!r}], not {tuple(rows.shape)}"
            )


def at_most(n: int, batches: Iterator[Batch], method: str) -> Iterator[Batch]:
    """The batches of a task, which never end; UserError for a method that takes more than n."""
    yield from islice(batches, n)
    raise UserError(
        f"{method}: its boundary takes more than {n:,} batches, which never end by themselves; "
        f"take as many as it needs, as in itertools.islice(batches, 8)"
    )


def explain_kept_graph(methods: Iterable[nn.Module], error: RuntimeError) -> None:
    """UserError where the gradient went back into an update before this one."""
    kept = [
        f"{method.name}: its {name}"
        for method in methods
        for name, value in {**vars(method), **method._buffers}.items()
        if name[0] != "_" and _has_graph(value)
    ]
    if kept and "second time" in str(error):
        raise UserError(
            f"{kept[0]} still has the graph of the update it is from; keep it by .detach()"
        ) from error


def _has_graph(value: Any) -> bool:
    if isinstance(value, dict | list | tuple):
        return any(map(_has_graph, value.values() if isinstance(value, dict) else value))
    return isinstance(value, torch.Tensor) and value.grad_fn is not None


def metrics_of(method: str, returned: Any) -> dict[str, float]:
    """What a method's `evaluate` returned; UserError unless it is numbers, each under a name of
    its own, which none of the study's is taken for."""
    if not isinstance(returned, Mapping):
        kind = type(returned).__name__
        raise UserError(f"{method}: its evaluate must return {{name: number}}, not {kind}")
    found = {}
    for name, value in returned.items():
        of_method = isinstance(name, str) and method in name.split("/")
        if not of_method or name.startswith("loss/"):
            raise UserError(
                f"{method}: its evaluate gives {name!r}; name it by the method, as in "
                f"{method}/share"
            )
        try:
            found[name] = float(value)
        except (TypeError, ValueError, RuntimeError):
            raise UserError(
                f"{method}: its evaluate gives no number for {name}, but {type(value).__name__}"
            ) from None
    return found
