"""Any evosax algorithm on several objectives: many scalarisations at once, under vmap.

Wierzbicki, "The use of reference objectives in multiobjective optimization", 1980,
https://doi.org/10.1007/978-3-642-48782-8_32 (achievement scalarising functions); Steuer and Choo, "An interactive
weighted Tchebycheff procedure for multiple objective programming", 1983, https://doi.org/10.1007/BF02591870
(augmentation).
Shapes: P = W x p population, W weight vectors of p rows each, M objectives, G genes, D coordinates.
"""

import dataclasses
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from hadas_jax.search.directions import spread_weights
from hadas_jax.search.encodings import ENCODINGS, Encoding
from hadas_jax.search.evosax_algorithms import MINIMUM_ROWS, Algorithm, build, check_algorithm, fits
from hadas_jax.search.strategy import Elitist, State

_AUGMENTATION = 0.01
_LARGE = 1e6


@struct.dataclass
class Memory:
    """What the searches remember.

    Attributes:
        ideal: float32[M], the least of each objective in the first population.
        span: float32[M], the range of each objective in the first population.
        asked: float32[W, p, D], what the searches proposed last.
        searches: evosax's states, every leaf with W in front.
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
        algorithm: class name in evosax, see `algorithm_names`.
        directions: W, a divisor of P; None for about the square root of P.
        encoding: "random_keys" for genes whose values have an order, "logits" for others.
    """

    algorithm: str = dataclasses.field(default="DifferentialEvolution", kw_only=True)
    directions: int | None = dataclasses.field(default=None, kw_only=True)
    encoding: str = dataclasses.field(default="random_keys", kw_only=True)

    accepts_any: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_algorithm(self.algorithm)
        if self.encoding not in ENCODINGS:
            raise ValueError(f"encoding: expected one of {', '.join(ENCODINGS)}, got {self.encoding}")
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
            key: typed PRNG key.
            state: the current state.
            params: evosax's.

        Returns:
            int32[P, G] to evaluate, rows of one search together; the state, which remembers what was asked.
        """
        search, encoding = self._search(), self._encoding()
        memory: Memory = state.memory
        asked, searches = jax.vmap(search.ask, in_axes=(0, 0, None))(self._keys(key), memory.searches, params)
        if search.from_population:
            asked = jax.vmap(jax.vmap(encoding.fold))(asked)
        genomes = jax.vmap(jax.vmap(encoding.decode))(asked).reshape(self.population_size, -1)
        return genomes, dataclasses.replace(state, memory=dataclasses.replace(memory, asked=asked, searches=searches))

    def _begin(self, key: jax.Array, told: State, params: Any) -> Memory:
        """Every search starts from the p genomes that are best for its mixture."""
        ideal, span = _frame(told)
        weights = self._weights(told.fitness.shape[1])
        score = jax.vmap(achievement, in_axes=(0, 0, None, None, None))
        scores = jax.vmap(score, in_axes=(None, None, 0, None, None))(
            told.fitness, told.violation, weights, ideal, span
        )
        best = jnp.argsort(scores, axis=1)[:, : self._rows]
        points = jax.vmap(jax.vmap(self._encoding().encode))(told.population[best])
        scores = jnp.take_along_axis(scores, best, axis=1)
        searches = jax.vmap(self._search().init, in_axes=(0, 0, 0, None))(self._keys(key), points, scores, params)
        return Memory(ideal=ideal, span=span, asked=points, searches=searches)

    def _learn(self, key: jax.Array, told: State, survivors: State, params: Any) -> State:
        """Tells every search the scores of its own rows."""
        memory: Memory = survivors.memory
        W, p, _ = memory.asked.shape
        score = jax.vmap(achievement, in_axes=(0, 0, None, None, None))
        scores = jax.vmap(score, in_axes=(0, 0, 0, None, None))(
            told.fitness.reshape(W, p, -1),
            told.violation.reshape(W, p),
            self._weights(told.fitness.shape[1]),
            memory.ideal,
            memory.span,
        )
        tell = jax.vmap(self._search().tell, in_axes=(0, 0, 0, 0, None))
        searches = tell(self._keys(key), memory.asked, scores, memory.searches, params)
        return dataclasses.replace(survivors, memory=dataclasses.replace(memory, searches=searches))

    @property
    def _rows(self) -> int:
        return self.population_size // (self.directions or 1)

    def _search(self) -> Algorithm:
        encoding = self._encoding()
        return build(self.algorithm, rows=self._rows, size=encoding.size, step=encoding.step)

    def _encoding(self) -> Encoding:
        return ENCODINGS[self.encoding](self.cardinalities)

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

    Source: Wierzbicki 1980; Steuer and Choo 1983.
    """
    gaps = jnp.clip((fitness - ideal) / span, -_LARGE, _LARGE)
    distance = jnp.max(weights * gaps) + _AUGMENTATION * jnp.sum(gaps)
    feasible = distance / (1 + jnp.abs(distance))
    # The bits of a float that is not negative rise with it, by about as much for every octave.
    octaves = jax.lax.bitcast_convert_type(violation, jnp.int32).astype(jnp.float32) * 2.0**-31
    score = jnp.where(violation > 0, 2 + octaves, feasible)
    return jnp.where(jnp.isnan(violation) | jnp.any(jnp.isnan(fitness)), 3, score)


def _frame(told: State) -> tuple[jax.Array, jax.Array]:
    """Ideal and span of the feasible rows, of all rows where none is feasible: float32[M] each."""
    feasible = told.violation <= 0
    counted = jnp.where(jnp.any(feasible), feasible, True)[:, None] & jnp.isfinite(told.fitness)
    least = jnp.min(told.fitness, axis=0, where=counted, initial=jnp.inf)
    most = jnp.max(told.fitness, axis=0, where=counted, initial=-jnp.inf)
    known = jnp.isfinite(least)
    span = jnp.where(known, most - jnp.where(known, least, 0), 0)
    return jnp.where(known, least, 0), jnp.where((span > 0) & jnp.isfinite(span), span, 1)


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
        even = " and even" if not fits(algorithm, MINIMUM_ROWS + 1) else ""
        raise ValueError(
            f"population_size: expected W x p with W > 1 directions of p >= {MINIMUM_ROWS}{even} rows for {algorithm}, "
            f"such as {near}, got {size}"
        )
    return min(several, key=lambda count: (max(count * count / size, size / (count * count)), count))


def _divisors(algorithm: str, size: int) -> list[int]:
    return [W for W in range(1, size + 1) if size % W == 0 and fits(algorithm, size // W)]
