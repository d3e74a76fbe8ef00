"""Heads on the features of a frozen network: several kinds are trained, and the best on the validation images is kept.

A head is linear or has one hidden layer, on features that are pooled by their mean alone or also by their maximum (of
maps) or first token (of sequences). Its loss is that of HADAS's exits (`hadas_jax.training.exits`): it learns from the
labels and from the network's own classifier, and beside it whether it is right. Features are standardised; what is kept
has that folded into its weights.
Shapes: N images, D features, H hidden, K classes, B batch, W weight decays side by side.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from hadas_jax.training.exits import exit_losses
from hw_models import LayerKind

FEATURES = "features"
_DECAYS = (1e-4, 1e-2, 1e-1)
_HIDDEN = 256
_BATCH, _LEARNING_RATE = 128, 3e-3
_LEAST_WIDTH = 64  # widths are padded to powers of two from here on, so that few shapes are compiled
_LEAST_STD = 1e-6
_CERTAIN = 30.0  # logit of the label where there is no classifier to learn from
Dense = tuple[np.ndarray, np.ndarray]  # kernel [D, K], bias [K]


@dataclass(frozen=True)
class Head:
    """A trained head.

    Attributes:
        pools: How the features are pooled, side by side.
        hidden: Kernel and bias of hidden layers, with ReLU.
        last: Of the logits, and in the last column of the logit of its confidence.
    """

    pools: tuple[str, ...]
    hidden: tuple[Dense, ...]
    last: Dense

    @property
    def classes(self) -> int:
        """K."""
        return len(self.last[1]) - 1

    @property
    def kind(self) -> str:
        """What it is, for people."""
        return f"{'hidden layer' if self.hidden else 'linear'} on {' and '.join(self.pools)}"

    def predict(self, parts: Sequence[np.ndarray], *, rows: int = 4096) -> tuple[np.ndarray, np.ndarray]:
        """Returns logits float32[N, K] and the logits of the confidence float32[N].

        Args:
            parts: Features [N, D] for each of `pools`.
            rows: How many are in memory at once.
        """
        found = []
        for start in range(0, len(parts[0]), rows):
            x = np.concatenate([part[start : start + rows] for part in parts], axis=1)
            for kernel, bias in self.hidden:
                x = np.maximum(x @ kernel + bias, 0)
            found.append(x @ self.last[0] + self.last[1])
        both = np.concatenate(found)
        return both[:, :-1], both[:, -1]

    def rows(self, elements: int, *, learned: bool) -> list[tuple[int, int, int, int, int, int]]:
        """Returns its layers: kind, MACs, weights, inputs, outputs, kernels.

        Args:
            elements: Of the tensor that it takes.
            learned: Whether its own confidence is computed.
        """
        widths = [len(kernel) for kernel, _ in (*self.hidden, self.last)]
        each, rows = widths[0] // len(self.pools), []
        if elements > each:
            rows = [(int(LayerKind.POOLING), elements, 0, elements, each, 1) for _ in self.pools]
        for ins, outs in zip(widths, [*widths[1:], self.classes + learned], strict=True):
            rows.append((int(LayerKind.LINEAR), ins * outs, ins * outs + outs, ins, outs, 1))
        return rows

    def as_arrays(self) -> dict[str, Any]:
        """Returns its arrays by name."""
        layers = (*self.hidden, self.last)
        return {f"layer{n}": {"kernel": kernel, "bias": bias} for n, (kernel, bias) in enumerate(layers)}

    @classmethod
    def of_arrays(cls, pools: Sequence[str], arrays: dict[str, Any]) -> "Head":
        """Returns the head of what `as_arrays` gave."""
        layers = [(np.asarray(arrays[name]["kernel"]), np.asarray(arrays[name]["bias"])) for name in sorted(arrays)]
        return cls(tuple(pools), tuple(layers[:-1]), layers[-1])


@dataclass(frozen=True)
class Training:
    """What heads are trained and compared on.

    Attributes:
        labels: int32[N] of the training images.
        teacher: float32[N, K], logits of the network's own classifier on them; None: there is none.
        validation: int32[n], labels of the validation images.
        classes: K.
        epochs: How often the training images are gone through.
        bytes: Features in memory at once, at most.
        seed: Of weights and orders.
    """

    labels: np.ndarray
    teacher: np.ndarray | None
    validation: np.ndarray
    classes: int
    epochs: int
    bytes: int
    seed: int


def train_head(train: dict[str, np.ndarray], validation: dict[str, np.ndarray], about: Training) -> tuple[Head, float]:
    """Trains heads of every kind, and returns the best by the validation images, with its accuracy there.

    Args:
        train: Features [N, D] of the training images by the way they are pooled.
        validation: Likewise of the validation images.
        about: Labels, and how to train.
    """
    names = tuple(train)
    kinds = [(names[:1], 0), (names, 0), (names[:1], _HIDDEN), (names, _HIDDEN)]
    best: tuple[Head, float] | None = None
    for pools, hidden in dict.fromkeys(kinds):
        for head in _heads(pools, [train[name] for name in pools], about, hidden):
            logits, _ = head.predict([validation[name] for name in pools])
            accuracy = float(np.mean(logits.argmax(axis=1) == about.validation))
            if best is None or accuracy > best[1]:
                best = head, accuracy
    if best is None:
        raise ValueError("heads: expected features to train on, got none")
    return best


def _heads(pools: Sequence[str], parts: Sequence[np.ndarray], about: Training, hidden: int) -> Iterator[Head]:
    """Trains heads of one kind, one for each weight decay."""
    count, width = len(parts[0]), sum(part.shape[1] for part in parts)
    padded = max(1 << (width - 1).bit_length(), _LEAST_WIDTH)
    rows = int(np.clip(about.bytes // (4 * padded), min(_BATCH, count), count))
    mean, std = _statistics(parts, rows)
    batch = min(_BATCH, rows)
    steps = sum(min(rows, count - start) // batch for start in range(0, count, rows))
    rng = np.random.default_rng(about.seed)
    state = _start(jax.random.key(about.seed), padded, hidden, about.classes)
    chunk: list[jax.Array] = []
    for _ in range(about.epochs):
        for start in rng.permutation(range(0, count, rows)).tolist():
            own = min(rows, count - start)
            if own < batch:
                continue
            if rows < count or not chunk:
                x = np.concatenate([part[start : start + own] for part in parts], axis=1)
                x = np.pad((x - mean) / std, ((0, 0), (0, padded - width))).astype(np.float32)
                labels = about.labels[start : start + own]
                teacher = None if about.teacher is None else np.asarray(about.teacher[start : start + own])
                if teacher is None:
                    teacher = _CERTAIN * np.eye(about.classes, dtype=np.float32)[labels]
                chunk = [jnp.asarray(x), jnp.asarray(labels, jnp.int32), jnp.asarray(teacher, jnp.float32)]
            order = rng.permutation(own)[: own // batch * batch].reshape(-1, batch)
            state = _go_through(state, *chunk, jnp.asarray(order, jnp.int32), total=max(steps * about.epochs, 1))
    weights = jax.tree.map(np.asarray, state[0])
    for row in range(len(_DECAYS)):
        layers = [(layer["kernel"][row], layer["bias"][row]) for layer in weights]
        kernel, bias = layers[0]
        kernel = kernel[:width] / std[:, None]
        layers[0] = (kernel.astype(np.float32), (bias - mean @ kernel).astype(np.float32))
        yield Head(tuple(pools), tuple(layers[:-1]), layers[-1])


def _statistics(parts: Sequence[np.ndarray], rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of all features, float64[D]."""
    means, stds = [], []
    for part in parts:
        total, squares = np.zeros(part.shape[1]), np.zeros(part.shape[1])
        for start in range(0, len(part), rows):
            x = np.asarray(part[start : start + rows], np.float64)
            total, squares = total + x.sum(axis=0), squares + (x**2).sum(axis=0)
        means.append(total / len(part))
        stds.append(np.sqrt(np.maximum(squares / len(part) - means[-1] ** 2, 0)))
    std = np.concatenate(stds)
    return np.concatenate(means), np.where(std > _LEAST_STD, std, 1.0)


def _optimiser(decay: jax.Array | float, total: int) -> optax.GradientTransformation:
    schedule = optax.cosine_decay_schedule(_LEARNING_RATE, total)
    return optax.chain(
        optax.scale_by_adam(), optax.add_decayed_weights(decay, _kernels), optax.scale_by_learning_rate(schedule)
    )


def _kernels(weights: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.ndim > 1, weights)


@partial(jax.jit, static_argnames=("width", "hidden", "classes"))
def _start(key: jax.Array, width: int, hidden: int, classes: int) -> Any:
    """Weights and the optimiser's state, leading axis W."""
    sizes = [width, *([hidden] if hidden else []), classes + 1]
    weights = [
        {
            "kernel": jax.random.normal(jax.random.fold_in(key, n), (ins, outs)) * (0.5 / ins) ** 0.5,
            "bias": jnp.zeros(outs),
        }
        for n, (ins, outs) in enumerate(itertools.pairwise(sizes))
    ]
    state = (weights, _optimiser(0.0, 1).init(weights))
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (len(_DECAYS), *leaf.shape)), state)


@partial(jax.jit, static_argnames="total")
def _go_through(
    state: Any, x: jax.Array, labels: jax.Array, teacher: jax.Array, order: jax.Array, *, total: int
) -> Any:
    """Goes through some images once, order int32[steps, B], for each weight decay."""

    def loss(weights: Any, rows: jax.Array) -> jax.Array:
        y = x[rows]
        for layer in weights[:-1]:
            y = jax.nn.relu(y @ layer["kernel"] + layer["bias"][None])
        both = y @ weights[-1]["kernel"] + weights[-1]["bias"][None]
        return exit_losses(both[None, :, :-1], both[None, :, -1], teacher[rows], labels[rows])[0]

    def one(of_decay: tuple[Any, jax.Array]) -> Any:
        state, decay = of_decay
        optimiser = _optimiser(decay, total)

        def step(state: Any, rows: jax.Array) -> tuple[Any, None]:
            weights, moments = state
            gradients = jax.grad(loss)(weights, rows)
            with jax.numpy_dtype_promotion("standard"):  # optax mixes whole and other numbers
                updates, moments = optimiser.update(gradients, moments, weights)
            return (optax.apply_updates(weights, updates), moments), None

        return jax.lax.scan(step, state, order)[0]

    # CPUs take twice as long for a batched matrix product as for its parts one by one.
    return jax.lax.map(one, (state, jnp.asarray(_DECAYS, jnp.float32)))
