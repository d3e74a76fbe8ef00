"""How many candidates per second each part of a search gets through, by population size, beside pymoo.

A candidate is an AttentiveNAS backbone (28 genes) at an operating point of the device (3 genes); its error is a
smooth function of its genes that stands for a surrogate, its latency and energy come from the cost model. Searches are
one compiled function each; in the joint search a candidate has a dozen exits besides. pymoo, where it is installed,
does the same work on the same functions in the same process; the two alternate, and medians count.
Units: seconds of one call on a whole population.
"""

import importlib.util
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hadas_jax.search import NSGA2, Product, product_front, run, sample
from hadas_jax.spaces import load_space
from hadas_jax.spaces.costs import block_costs, population_cost
from hw_models import Device, read_device_file
from hw_models.catalogue import to_device

WORK = ("cost model", "variation", "inner search", "generation", "search", "joint search")
GENERATIONS = 10  # of a whole search
_Call = Callable[[], Any]
_LEAST_S = 0.05  # a measurement repeats until it took as long
_EXITS = 12
_FRONT = 8192


@dataclass(frozen=True)
class Throughput:
    """One part of the search at one population size.

    Attributes:
        work: What is done, one of `WORK`.
        population: Candidates per call; operating points times exit subsets for the inner search.
        candidates: The candidates that one call gets through.
        first_call_s: The time of the first call, with compilation.
        seconds: The median time of the later calls.
        peer_seconds: pymoo's median, duplicates kept; None where it was not measured.
        peer_unique_seconds: pymoo's median, duplicates removed, its default; None likewise.
    """

    work: str
    population: int
    candidates: int
    first_call_s: float
    seconds: float
    peer_seconds: float | None = None
    peer_unique_seconds: float | None = None

    @property
    def per_second(self) -> float:
        """Candidates per second."""
        return self.candidates / self.seconds


def measure_throughput(
    *,
    device: str = "agx-xavier-gpu",
    populations: Sequence[int] = (64, 256, 1024, 4096, 16384, 65536),
    rounds: int = 5,
    peer_limit: int = 16384,
    seed: int = 0,
) -> Iterator[Throughput]:
    """Measures every part of the search at every population size.

    Args:
        device: The name of a device, or the path of a device file.
        populations: Sizes, each at least 2.
        rounds: Measurements of each, of which the median counts.
        peer_limit: Largest population that pymoo gets, a tenth of it where it removes duplicates; 0: none.
        seed: Random seed.

    Yields:
        A `Throughput` as soon as it is measured.

    Raises:
        ValueError: An unknown device, or numbers that are too small.
    """
    if not populations or min(populations) < 2:
        raise ValueError(f"populations: expected sizes of at least 2, got {list(populations)}")
    if rounds < 1:
        raise ValueError(f"rounds: expected at least 1, got {rounds}")
    file = read_device_file(device)
    file.roofline()  # a table of blocks covers one space at one size
    model = to_device(file)
    calls = (_cost_model, _variation, _inner_search, _generation, _search, _joint_search)
    work_of = dict(zip(WORK, calls, strict=True))
    for population in populations:
        task = Task(model, population, seed)
        for work in WORK:
            call, candidates = work_of[work](task)
            peers = _peers(task, work, peer_limit)
            yield _measured(work, population, call, candidates=candidates, peers=peers, rounds=rounds)


def _measured(
    work: str,
    population: int,
    call: _Call,
    *,
    candidates: int,
    peers: Sequence[_Call],
    rounds: int,
) -> Throughput:
    start = time.perf_counter()
    jax.block_until_ready(call())
    first = time.perf_counter() - start
    for peer in peers:
        peer()
    times: list[list[float]] = [[] for _ in (call, *peers)]
    for _ in range(rounds):
        for each, measured in zip((call, *peers), times, strict=True):
            measured.append(_seconds(each))
    seconds, *others = map(statistics.median, times)
    kept, unique = (*others, None, None)[:2]
    return Throughput(work, population, candidates, first, seconds, kept, unique)


def _seconds(call: _Call) -> float:
    """Mean of as many calls as take `_LEAST_S` together."""
    calls, start = 0, time.perf_counter()
    while True:
        jax.block_until_ready(call())
        calls += 1
        passed = time.perf_counter() - start
        if passed >= _LEAST_S:
            return passed / calls


@dataclass(frozen=True, eq=False)
class Task:
    """The joint search that is timed.

    Attributes:
        device: The cost model.
        population: Candidates per generation.
        seed: Random seed of the first population.
    """

    device: Device
    population: int
    seed: int = 0

    @cached_property
    def cardinalities(self) -> tuple[int, ...]:
        """The number of values of the 28 genes of a backbone and of the three clocks."""
        clocks = (len(self.device.core_hz), len(self.device.memory_hz), len(self.device.host_hz))
        return (*(int(c) for c in self._space.codec.cardinalities), *clocks)

    @cached_property
    def strategy(self) -> NSGA2:
        """NSGA-II over the joint genome."""
        return NSGA2(population_size=self.population, cardinalities=self.cardinalities)

    @cached_property
    def first(self) -> jax.Array:
        """Random candidates, int32[P, 31]."""
        return sample(jax.random.key(self.seed), jnp.asarray(self.cardinalities, jnp.int32), size=self.population)

    @cached_property
    def evaluate(self) -> Callable[[jax.Array], jax.Array]:
        """Genomes int32[P, 31] -> error, latency_s, energy_j float32[P, 3]; compiled."""
        space, device = self._space, self.device
        blocks = jax.jit(block_costs, static_argnums=0)(space, device)
        genes = len(space.codec.choices)
        highest = jnp.asarray(np.maximum(np.array(self.cardinalities[:genes]) - 1, 1), jnp.float32)

        @jax.jit
        def evaluate(genomes: jax.Array) -> jax.Array:
            cost = population_cost(space, blocks, device, genomes=genomes[:, :genes], indices=genomes[:, genes:])
            size = genomes[:, :genes].astype(jnp.float32) / highest[None]
            error = 0.2 + 0.15 * jnp.exp(-jnp.sum(size, axis=1) / 8)
            return jnp.stack([error, cost.latency_s, cost.energy_j], axis=1)

        return evaluate

    @cached_property
    def _space(self) -> Any:
        return load_space("attentivenas").adapt(in_channels=3, classes=1000, image_size=224)


def _started(task: Task) -> Any:
    params = task.strategy.default_params
    return task.strategy.init(jax.random.key(1), task.first, task.evaluate(task.first), params)


def _cost_model(task: Task) -> tuple[_Call, int]:
    return lambda: task.evaluate(task.first), task.population


def _variation(task: Task) -> tuple[_Call, int]:
    state, params = _started(task), task.strategy.default_params
    return lambda: task.strategy.ask(jax.random.key(2), state, params)[0], task.population


def _generation(task: Task) -> tuple[_Call, int]:
    """Variation and selection; evaluation aside."""
    strategy, params = task.strategy, task.strategy.default_params
    state, fitness = _started(task), task.evaluate(task.first)

    @jax.jit
    def generation(state: Any, fitness: jax.Array) -> Any:
        genomes, state = strategy.ask(jax.random.key(2), state, params)
        return strategy.tell(jax.random.key(3), genomes, fitness, state, params)[0]

    return lambda: generation(state, fitness), task.population


def _search(task: Task) -> tuple[_Call, int]:
    """A first population and `GENERATIONS` more, evaluated by the cost model."""
    search = partial(run, task.strategy, task.evaluate, jax.random.key(1), GENERATIONS, population=task.first)
    return search, task.population * (GENERATIONS + 1)


def _joint_search(task: Task) -> tuple[_Call, int]:
    """Likewise with exits in the genome too, whose samples pay a share of what the table says of the whole network.

    An exit stops half of the samples that reach it, at the share of the trunk where it stands, and takes a hundredth of
    the whole network; each costs a little accuracy.
    """
    strategy = NSGA2(task.population, (*task.cardinalities, *[2] * _EXITS))
    places = jnp.arange(1, _EXITS + 1, dtype=jnp.float32) / (_EXITS + 1)

    def evaluate(genomes: jax.Array) -> jax.Array:
        chosen = genomes[:, -_EXITS:].astype(jnp.float32)
        reached = jnp.cumprod(1 - chosen / 2, axis=1)
        stopped = jnp.concatenate([jnp.ones_like(reached[:, :1]), reached[:, :-1]], axis=1) - reached
        share = stopped @ places + reached[:, -1] + 0.01 * jnp.sum(chosen, axis=1)
        objectives = task.evaluate(genomes[:, :-_EXITS])
        error = objectives[:, 0] + 0.02 * (stopped @ (1 - places))
        return jnp.stack([error, share * objectives[:, 1], share * objectives[:, 2]], axis=1)

    search = partial(run, strategy, evaluate, jax.random.key(1), GENERATIONS)
    return search, task.population * (GENERATIONS + 1)


def _inner_search(task: Task) -> tuple[_Call, int]:
    """The exact front over as many exit subsets as the population has members, at all clocks."""
    subsets = min(task.population, 2**_EXITS)
    draws = np.random.default_rng(task.seed)
    points = math.prod(task.cardinalities[-3:])
    going_on = np.sort(draws.random((subsets, _EXITS + 1)), axis=1)[:, ::-1]
    weights = jnp.asarray(np.concatenate([going_on, going_on[:, :-1]], axis=1), jnp.float32)
    errors = jnp.asarray(draws.integers(100, 700, subsets) / 2000, jnp.float32)
    clocks = jnp.asarray(np.stack(np.unravel_index(np.arange(points), task.cardinalities[-3:]), axis=1), jnp.int32)
    genomes = np.concatenate([np.repeat(np.asarray(task.first[:1, :-3]), points, axis=0), clocks], axis=1)
    cost = task.evaluate(jnp.asarray(genomes, jnp.int32))
    shares = jnp.asarray(draws.uniform(0.02, 0.2, weights.shape[1]), jnp.float32)
    latency, energy = (shares[:, None] * cost[None, :, m] for m in (1, 2))
    front = partial(product_front, Product(errors, weights, latency, energy), capacity=_FRONT)
    return front, subsets * points


def _peers(task: Task, work: str, limit: int) -> list[_Call]:
    """Pymoo's calls: duplicates kept, and removed where the population is small enough for that."""
    if work not in ("variation", "generation", "search") or importlib.util.find_spec("pymoo") is None:
        return []
    most = {False: limit, True: limit // 10}
    return [_pymoo_call(task, work, unique=unique) for unique in most if task.population <= most[unique]]


def _pymoo_call(task: Task, work: str, *, unique: bool) -> _Call:
    """A call of pymoo's NSGA-II over integer genes that does the work once.

    Its settings are its best for this work: uniform crossover and a vectorised integer mutation, binary tournaments,
    and the survival that uses compiled sorting. `unique` removes duplicates, pymoo's default.
    """
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.core.mutation import Mutation
    from pymoo.core.problem import Problem
    from pymoo.operators.crossover.ux import UX

    highest, first = np.array(task.cardinalities) - 1, np.asarray(task.first)
    genes = len(highest)

    def evaluate(genomes: np.ndarray) -> np.ndarray:
        return np.asarray(task.evaluate(jnp.asarray(genomes.astype(np.int32))))

    class Space(Problem):
        def __init__(self) -> None:
            super().__init__(n_var=genes, n_obj=3, xl=np.zeros(genes, int), xu=highest, vtype=int)

        def _evaluate(self, x: np.ndarray, out: dict[str, Any], *args: Any, **kwargs: Any) -> None:
            out["F"] = evaluate(x)

    class Redraw(Mutation):
        def _do(self, problem: Any, X: np.ndarray, *args: Any, random_state: Any, **kwargs: Any) -> np.ndarray:  # noqa: N803
            chosen = random_state.random(X.shape) < 1 / genes
            return np.where(chosen, random_state.integers(0, highest + 1, X.shape), X)

    def after(generations: int) -> Any:
        algorithm = NSGA2(
            pop_size=task.population,
            sampling=first.astype(int),
            crossover=UX(prob=0.9),
            mutation=Redraw(),
            eliminate_duplicates=unique,
        )
        algorithm.setup(Space(), termination=("n_gen", 1_000_000), seed=task.seed, verbose=False)
        for _ in range(generations):
            algorithm.next()
        return algorithm

    if work == "search":
        return lambda: after(GENERATIONS + 1)
    algorithm = after(1)
    if work == "variation":
        return algorithm.infill
    values = evaluate(first)

    def generation() -> Any:
        """Mating and survival; evaluation aside."""
        offspring = algorithm.infill()
        offspring.set("F", values[: len(offspring)])
        merged = algorithm.pop.__class__.merge(algorithm.pop, offspring)
        given = {"n_survive": task.population, "algorithm": algorithm, "random_state": algorithm.random_state}
        return algorithm.survival.do(algorithm.problem, merged, **given)

    return generation
