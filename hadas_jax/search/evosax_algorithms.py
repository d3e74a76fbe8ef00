"""evosax's algorithms by name, set up for coordinates of unit range, one interface for both of its kinds.

Lange, "evosax: JAX-based evolution strategies", 2022, https://arxiv.org/abs/2212.04180.
Shapes: p rows per generation, D coordinates. Scores are minimised and finite.
"""

import dataclasses
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp

MINIMUM_ROWS = 4
_EVEN = frozenset(("ARS", "ASEBO", "CR_FM_NES", "ESMC", "NoiseReuseES", "Open_ES", "PersistentES", "PGPE"))
_GRADIENT = _EVEN - {"CR_FM_NES", "PGPE"}
_LEARNING_RATE = 0.05
_UNUSABLE = {
    "GuidedES": "asks for gradients",
    "RandomSearch": "is here as RandomSearch, without evosax",
    "SV_CMA_ES": "moves several populations at once, as the weight vectors do already",
    "SV_Open_ES": "moves several populations at once, as the weight vectors do already",
}


def algorithm_names() -> tuple[str, ...]:
    """The class names of the algorithms that `build` can set up, in alphabetical order."""
    return tuple(sorted(set(_classes()) - set(_UNUSABLE)))


def check_algorithm(name: str) -> None:
    """Raises unless evosax has an algorithm of this class name that works here.

    Args:
        name: such as "CMA_ES".

    Raises:
        ValueError: with the reason and the names that work.
    """
    if name in _UNUSABLE:
        raise ValueError(f"algorithm: {name} {_UNUSABLE[name]}; expected one of {', '.join(algorithm_names())}")
    if name not in _classes():
        raise ValueError(f"algorithm: expected one of {', '.join(algorithm_names())}, got {name}")


def fits(name: str, rows: int) -> bool:
    """Whether an algorithm works with p rows: at least 4, and even where it samples in pairs."""
    return rows >= MINIMUM_ROWS and (rows % 2 == 0 or name not in _EVEN)


@dataclasses.dataclass(frozen=True, eq=False)
class Algorithm:
    """One of evosax's algorithms; batch over its states with `jax.vmap`.

    evosax follows standard promotion only, and makes states of weak types, which would compile anew after a
    checkpoint: both are mended here.

    Attributes:
        instance: evosax's.
        from_population: whether it starts from evaluated points, otherwise from one point.
        step: standard deviation of the first steps.
    """

    instance: Any
    from_population: bool
    step: float

    @property
    def default_params(self) -> Any:
        """Evosax's parameters with first steps of this set-up; every number is an array."""
        with _standard_promotion():
            params = self.instance.default_params
            if hasattr(params, "std_init"):
                params = params.replace(std_init=self.step)
            return jax.tree.map(_strong, params)

    def init(self, key: jax.Array, points: jax.Array, scores: jax.Array, params: Any) -> Any:
        """Starts from evaluated points, the best first: float32[p, D], float32[p] -> state."""
        with _standard_promotion():
            if self.from_population:
                state = self.instance.init(key, points, scores, params)
            else:
                state = self.instance.init(key, points[0], params)
            return jax.tree.map(_strong, state)

    def ask(self, key: jax.Array, state: Any, params: Any) -> tuple[jax.Array, Any]:
        """Proposes float32[p, D], and the state to tell."""
        with _standard_promotion():
            points, state = self.instance.ask(key, state, params)
            return points, jax.tree.map(_strong, state)

    def tell(self, key: jax.Array, points: jax.Array, scores: jax.Array, state: Any, params: Any) -> Any:
        """Learns from float32[p, D], float32[p] -> state."""
        with _standard_promotion():
            state, _ = self.instance.tell(key, points, scores, state, params)
            return jax.tree.map(_strong, state)


@cache
def build(name: str, *, rows: int, size: int, step: float) -> Algorithm:
    """Sets up an algorithm; the same arguments give the same object, so that compiled code is shared.

    Algorithms that follow an estimated gradient get ranks for scores, and Adam with a rate that suits unit range.

    Args:
        name: of the class in evosax.
        rows: p.
        size: D.
        step: standard deviation of the first steps; half of it for algorithms that start from a population, whose
            members lie apart already.

    Returns:
        The algorithm.

    Raises:
        ValueError: for an unknown name, or one that does not work here.
    """
    check_algorithm(name)
    kind = _classes()[name]
    from_population = _from_population(kind)
    first = step / 2 if from_population else step
    with jax.ensure_compile_time_eval(), _standard_promotion():
        instance = kind(population_size=rows, solution=jnp.zeros(size), **_options(name, kind, first))
    return Algorithm(instance=instance, from_population=from_population, step=first)


def _options(name: str, kind: type, step: float) -> dict[str, Any]:
    import optax
    from evosax.core.fitness_shaping import centered_rank_fitness_shaping_fn

    options: dict[str, Any] = {}
    if "std_schedule" in inspect.signature(kind).parameters:
        options["std_schedule"] = optax.constant_schedule(step)
    if name in _GRADIENT:
        options["optimizer"] = optax.adam(_LEARNING_RATE)
        options["fitness_shaping_fn"] = centered_rank_fitness_shaping_fn
    return options


def _classes() -> dict[str, type]:
    from evosax.algorithms import algorithms

    return {kind.__name__: kind for kind in algorithms.values()}


def _from_population(kind: type) -> bool:
    from evosax.algorithms import population_based_algorithms

    return kind in population_based_algorithms.values()


def _strong(leaf: Any) -> jax.Array:
    array = jnp.asarray(leaf)
    return jax.lax.convert_element_type(array, array.dtype)


@contextmanager
def _standard_promotion() -> Iterator[None]:
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield
