"""Any evosax algorithm on several objectives: many scalarisations at once, under vmap.

Lange, "evosax: JAX-based evolution strategies", 2022, https://arxiv.org/abs/2212.04180. Wierzbicki, "The use of
reference objectives in multiobjective optimization", 1980, https://doi.org/10.1007/978-3-642-48782-8_32 (achievement
scalarising functions). Integer genomes become points of a continuous space of unit range; random keys: Bean, "Genetic
algorithms and random keys for sequencing and optimization", 1994, https://doi.org/10.1287/ijoc.6.2.154. Encodings
handle one genome; batch with `jax.vmap`.
Shapes: P = W x p population, W weight vectors of p rows each, M objectives, G genes, D coordinates; gene g takes the
values 0 .. cardinalities[g] - 1. Scores are minimised and finite.
"""

import dataclasses
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from hadas_jax.search.directions import spread_weights, tchebycheff
from hadas_jax.search.strategy import Elitist, State


@dataclasses.dataclass(frozen=True)
class RandomKeys:
    """One coordinate per gene: its value is the bin of [0, 1) that the key lies in, after mirroring at both ends.

    Suits genes whose values have an order. Mirroring leaves no plateau outside the bounds.

    Attributes:
        cardinalities: Of the G genes, each at most 2^20, so that float32 keys reach every value.
    """

    cardinalities: tuple[int, ...]

    def __post_init__(self) -> None:
        if max(self.cardinalities) > 2**20:
            raise ValueError(f"cardinalities: expected at most 2^20 for random keys, got {max(self.cardinalities)}")

    @property
    def size(self) -> int:
        """D = G."""
        return len(self.cardinalities)

    @property
    def step(self) -> float:
        """A fifth of the range."""
        return 0.2

    def encode(self, genome: jax.Array) -> jax.Array:
        """int32[G] -> float32[G], the middle of each gene's bin."""
        return (genome.astype(jnp.float32) + 0.5) / jnp.asarray(self.cardinalities, jnp.float32)

    def decode(self, point: jax.Array) -> jax.Array:
        """float32[G] -> int32[G]."""
        bins = jnp.floor(self.fold(point) * jnp.asarray(self.cardinalities, jnp.float32))
        return jnp.minimum(bins.astype(jnp.int32), jnp.asarray(self.cardinalities, jnp.int32) - 1)

    def fold(self, point: jax.Array) -> jax.Array:
        """float32[G] -> float32[G] in [0, 1]: mirrored at whole numbers; what is not finite becomes 0.5."""
        finite = jnp.where(jnp.isfinite(point), point, 0.5)
        return 1 - jnp.abs(1 - jnp.mod(finite, 2.0))


@dataclasses.dataclass(frozen=True)
class Logits:
    """One coordinate per value: a gene's value is the index of the greatest of its block.

    Suits genes whose values have no order; D is the sum of the cardinalities.

    Attributes:
        cardinalities: Of the G genes.
    """

    cardinalities: tuple[int, ...]

    @property
    def size(self) -> int:
        """D."""
        return sum(self.cardinalities)

    @property
    def step(self) -> float:
        """Half the height of an encoded value above the rest."""
        return 0.5

    def encode(self, genome: jax.Array) -> jax.Array:
        """int32[G] -> float32[D]: 1 at each gene's value, 0 elsewhere."""
        pairs = zip(genome, self.cardinalities, strict=True)
        return jnp.concatenate([jax.nn.one_hot(value, count) for value, count in pairs])

    def decode(self, point: jax.Array) -> jax.Array:
        """float32[D] -> int32[G]."""
        blocks = jnp.split(point, np.cumsum(self.cardinalities)[:-1])
        return jnp.stack([jnp.argmax(block) for block in blocks]).astype(jnp.int32)

    def fold(self, point: jax.Array) -> jax.Array:
        """float32[D] -> the same: there are no bounds."""
        return point


_ENCODINGS: dict[str, type[RandomKeys] | type[Logits]] = {"random_keys": RandomKeys, "logits": Logits}
"""Encodings by name."""
_LEAST_ROWS = 4
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
    """The class names of the algorithms that can be set up, in alphabetical order."""
    return tuple(sorted(set(_classes()) - set(_UNUSABLE)))


def _check_algorithm(name: str) -> None:
    """Raises unless evosax has an algorithm of this class name that works here.

    Args:
        name: Such as "CMA_ES".

    Raises:
        ValueError: With the reason and the names that work.
    """
    if name in _UNUSABLE:
        raise ValueError(f"algorithm: {name} {_UNUSABLE[name]}; expected one of {', '.join(algorithm_names())}")
    if name not in _classes():
        raise ValueError(f"algorithm: expected one of {', '.join(algorithm_names())}, got {name}")


def _fits(name: str, rows: int) -> bool:
    """Whether an algorithm works with p rows: at least 4, and even where it samples in pairs."""
    return rows >= _LEAST_ROWS and (rows % 2 == 0 or name not in _EVEN)


@dataclasses.dataclass(frozen=True, eq=False)
class _Algorithm:
    """One of evosax's algorithms; batch over its states with `jax.vmap`.

    evosax follows standard promotion only, and makes states of weak types, which would compile anew after a
    checkpoint: both are mended here.

    Attributes:
        instance: Evosax's.
        from_population: Whether it starts from evaluated points, otherwise from one point.
        step: Standard deviation of the first steps.
    """

    instance: Any
    from_population: bool
    step: float

    @property
    def default_params(self) -> Any:
        """Evosax's parameters with first steps of this set-up; every number is an array."""

        def params() -> Any:
            defaults = self.instance.default_params
            return defaults.replace(std_init=self.step) if hasattr(defaults, "std_init") else defaults

        return _strongly(params)

    def init(self, key: jax.Array, points: jax.Array, scores: jax.Array, params: Any) -> Any:
        """Starts from evaluated points, the best first: float32[p, D], float32[p] -> state."""
        start = (points, scores) if self.from_population else (points[0],)
        return _strongly(self.instance.init, key, *start, params)

    def ask(self, key: jax.Array, state: Any, params: Any) -> tuple[jax.Array, Any]:
        """Proposes float32[p, D], and the state to tell."""
        return _strongly(self.instance.ask, key, state, params)

    def tell(self, key: jax.Array, points: jax.Array, scores: jax.Array, state: Any, params: Any) -> Any:
        """Learns from float32[p, D], float32[p] -> state."""
        return _strongly(lambda *told: self.instance.tell(*told)[0], key, points, scores, state, params)


@cache
def _build(name: str, *, rows: int, size: int, step: float) -> _Algorithm:
    """Sets up an algorithm; the same arguments give the same object, so that compiled code is shared.

    Algorithms that follow an estimated gradient get ranks for scores, and Adam with a rate that suits unit range.

    Args:
        name: Of the class in evosax.
        rows: P.
        size: D.
        step: Standard deviation of the first steps; half of it for algorithms that start from a population, whose
            members lie apart already.

    Returns:
        The algorithm.
    """
    import optax
    from evosax.algorithms import population_based_algorithms
    from evosax.core.fitness_shaping import centered_rank_fitness_shaping_fn

    kind = _classes()[name]
    from_population = kind in population_based_algorithms.values()
    first = step / 2 if from_population else step
    options: dict[str, Any] = {}
    if "std_schedule" in inspect.signature(kind).parameters:
        options["std_schedule"] = optax.constant_schedule(first)
    if name in _GRADIENT:
        options["optimizer"] = optax.adam(_LEARNING_RATE)
        options["fitness_shaping_fn"] = centered_rank_fitness_shaping_fn
    with jax.ensure_compile_time_eval(), _standard_promotion():
        instance = kind(population_size=rows, solution=jnp.zeros(size), **options)
    return _Algorithm(instance=instance, from_population=from_population, step=first)


def _classes() -> dict[str, type]:
    from evosax.algorithms import algorithms

    return {kind.__name__: kind for kind in algorithms.values()}


def _strongly(call: Callable[..., Any], *arguments: Any) -> Any:
    """Calls evosax, and makes all numbers of what it returns arrays of strong types."""

    def strong(leaf: Any) -> jax.Array:
        array = jnp.asarray(leaf)
        return jax.lax.convert_element_type(array, array.dtype)

    with _standard_promotion():
        return jax.tree.map(strong, call(*arguments))


@contextmanager
def _standard_promotion() -> Iterator[None]:
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


_AUGMENTATION = 0.01
_LARGE = 1e6


@struct.dataclass
class _Memory:
    """What the searches remember.

    Attributes:
        ideal: float32[M], the least of each objective in the first population.
        span: float32[M], the range of each objective in the first population.
        asked: float32[W, p, D], what the searches proposed last.
        searches: Evosax's states, every leaf with W in front.
    """

    ideal: jax.Array
    span: jax.Array
    asked: jax.Array
    searches: Any


@dataclasses.dataclass(frozen=True)
class Scalarised(Elitist):
    """W searches of an evosax algorithm, each for its own mixture of objectives; the best P seen are kept.

    Every search minimises an augmented weighted Tchebycheff function without absolute values (`achievement`). Its
    ideal point and ranges are those of the evaluated first population and never change, so that scores which
    evosax keeps in its states remain comparable; points beyond the ideal still count as better. See `Elitist` for
    init, tell and prefer; merits have no effect.

    Attributes:
        algorithm: Class name in evosax, see `algorithm_names`.
        directions: W, a divisor of P; None for about the square root of P.
        encoding: "random_keys" for genes whose values have an order, "logits" for others.
    """

    algorithm: str = dataclasses.field(default="DifferentialEvolution", kw_only=True)
    directions: int | None = dataclasses.field(default=None, kw_only=True)
    encoding: str = dataclasses.field(default="random_keys", kw_only=True)

    accepts_any: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_algorithm(self.algorithm)
        if self.encoding not in _ENCODINGS:
            raise ValueError(f"encoding: expected one of {', '.join(_ENCODINGS)}, got {self.encoding}")
        object.__setattr__(self, "directions", _directions(self.algorithm, self.population_size, self.directions))
        self._encoding()

    @property
    def default_params(self) -> Any:
        """The algorithm's parameters in evosax, with first steps that suit the encoding."""
        return self._search().default_params

    @partial(jax.jit, static_argnames=("self",))
    def ask(self, key: jax.Array, state: State, params: Any) -> tuple[jax.Array, State]:
        """Lets every search propose its rows.

        Args:
            key: Typed PRNG key.
            state: The current state.
            params: Evosax's.

        Returns:
            int32[P, G] to evaluate, rows of one search together; the state, which remembers what was asked.
        """
        search, encoding = self._search(), self._encoding()
        memory: _Memory = state.memory
        asked, searches = jax.vmap(search.ask, in_axes=(0, 0, None))(self._keys(key), memory.searches, params)
        if search.from_population:
            asked = jax.vmap(jax.vmap(encoding.fold))(asked)
        genomes = jax.vmap(jax.vmap(encoding.decode))(asked).reshape(self.population_size, -1)
        return genomes, dataclasses.replace(state, memory=dataclasses.replace(memory, asked=asked, searches=searches))

    def _begin(self, key: jax.Array, told: State, params: Any) -> _Memory:
        """Every search starts from the p genomes that are best for its mixture."""
        ideal, span = _frame(told)
        weights = self._weights(told.fitness.shape[1])
        score = jax.vmap(_achievements, in_axes=(None, None, 0, None, None))
        scores = score(told.fitness, told.violation, weights, ideal, span)
        best = jnp.argsort(scores, axis=1)[:, : self._rows]
        points = jax.vmap(jax.vmap(self._encoding().encode))(told.population[best])
        scores = jnp.take_along_axis(scores, best, axis=1)
        searches = jax.vmap(self._search().init, in_axes=(0, 0, 0, None))(self._keys(key), points, scores, params)
        return _Memory(ideal=ideal, span=span, asked=points, searches=searches)

    def _learn(self, key: jax.Array, told: State, survivors: State, params: Any) -> State:
        """Tells every search the scores of its own rows."""
        memory: _Memory = survivors.memory
        W, p, _ = memory.asked.shape
        fitness, violation = told.fitness.reshape(W, p, -1), told.violation.reshape(W, p)
        weights = self._weights(told.fitness.shape[1])
        score = jax.vmap(_achievements, in_axes=(0, 0, 0, None, None))
        scores = score(fitness, violation, weights, memory.ideal, memory.span)
        tell = jax.vmap(self._search().tell, in_axes=(0, 0, 0, 0, None))
        searches = tell(self._keys(key), memory.asked, scores, memory.searches, params)
        return dataclasses.replace(survivors, memory=dataclasses.replace(memory, searches=searches))

    @property
    def _rows(self) -> int:
        return self.population_size // (self.directions or 1)

    def _search(self) -> _Algorithm:
        encoding = self._encoding()
        return _build(self.algorithm, rows=self._rows, size=encoding.size, step=encoding.step)

    def _encoding(self) -> RandomKeys | Logits:
        return _ENCODINGS[self.encoding](self.cardinalities)

    def _keys(self, key: jax.Array) -> jax.Array:
        return jax.random.split(key, self.directions or 1)

    def _weights(self, objectives: int) -> jax.Array:
        return jnp.asarray(spread_weights(objectives, count=self.directions or 1), jnp.float32)


def achievement(
    fitness: jax.Array, violation: jax.Array, weights: jax.Array, ideal: jax.Array, span: jax.Array
) -> jax.Array:
    """How far a point is from an ideal, by its worst weighted objective and a little of all others.

    With z the objectives in units of span from ideal, s = max_m w_m z_m + 0.01 sum_m z_m, which falls strictly
    with every objective. What is returned is s / (1 + |s|) for feasible points, 2 to 3 for those that break a
    constraint, rising with the violation, and 3 for those with a NaN: finite in any case.

    Args:
        fitness: float32[M], minimised.
        violation: float32[], at least 0.
        weights: float32[M], at least 0.
        ideal: float32[M], finite.
        span: float32[M], above 0 and finite.

    Returns:
        float32[], within -1 .. 3.

    Source: Wierzbicki 1980; see `tchebycheff` for the augmented sum.
    """
    gaps = jnp.clip((fitness - ideal) / span, -_LARGE, _LARGE)
    distance = tchebycheff(gaps, weights, augmentation=_AUGMENTATION)
    feasible = distance / (1 + jnp.abs(distance))
    # The bits of a float that is not negative rise with it, by about as much for every octave.
    octaves = jax.lax.bitcast_convert_type(violation, jnp.int32).astype(jnp.float32) * 2.0**-31
    score = jnp.where(violation > 0, 2 + octaves, feasible)
    return jnp.where(jnp.isnan(violation) | jnp.any(jnp.isnan(fitness)), 3, score)


_achievements = jax.vmap(achievement, in_axes=(0, 0, None, None, None))


def _frame(told: State) -> tuple[jax.Array, jax.Array]:
    """Ideal and span of the feasible rows, of all rows where none is feasible: float32[M] each."""
    feasible = told.violation <= 0
    counted = (feasible | ~jnp.any(feasible))[:, None] & jnp.isfinite(told.fitness)
    least = jnp.min(told.fitness, axis=0, where=counted, initial=jnp.inf)
    most = jnp.max(told.fitness, axis=0, where=counted, initial=-jnp.inf)
    finite = jnp.isfinite(least)
    span = jnp.where(finite, most - jnp.where(finite, least, 0), 0)
    return jnp.where(finite, least, 0), jnp.where((span > 0) & jnp.isfinite(span), span, 1)


def _directions(algorithm: str, size: int, wanted: int | None) -> int:
    """How many weight vectors: as wanted, or a divisor near the square root; raises where none will do."""
    possible = _divisors(algorithm, size)
    if wanted is not None:
        if wanted not in possible:
            raise ValueError(f"directions: expected one of {possible} for {algorithm} with {size} rows, got {wanted}")
        return wanted
    several = [W for W in possible if W > 1]
    if not several:
        near = [n for n in range(max(size - 9, 1), size + 10) if len(_divisors(algorithm, n)) > 1]
        even = " and even" if not _fits(algorithm, _LEAST_ROWS + 1) else ""
        raise ValueError(
            f"population_size: expected W x p with W > 1 directions of p >= {_LEAST_ROWS}{even} rows for {algorithm}, "
            f"such as {near}, got {size}"
        )
    return min(several, key=lambda count: (max(count * count / size, size / (count * count)), count))


def _divisors(algorithm: str, size: int) -> list[int]:
    return [W for W in range(1, size + 1) if size % W == 0 and _fits(algorithm, size // W)]
