"""The flat engine: backbone, exits and clocks are one genome, bred in large populations without an inner search.

Every generation the supernet evaluates at most `population` backbones that are new; what their exits get right is kept.
Then some rounds of candidates are bred, evaluated and selected on the device in one compiled scan: a candidate's
backbone is the nearest one that was evaluated, so that every candidate has an error of the supernet's. Both engines
take the same number of backbones, have the same state and leave the same archive.
Shapes: C candidates, G genes of a backbone, E exits, A archive, W words of a bit set. A joint genome has G + E + 3
genes, of which the last three are the clocks.
"""

import dataclasses
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from hadas_jax.evaluation import segment_costs
from hadas_jax.evaluation.early_exit import percentile_paths
from hadas_jax.methods.hadas import inner
from hadas_jax.methods.hadas.archive import Archive
from hadas_jax.methods.hadas.constraints import ConfigLimits, relative_excess
from hadas_jax.methods.hadas.exit_configs import Stops
from hadas_jax.methods.hadas.outer import Hadas, HadasState
from hadas_jax.search import Elitist, State, load_strategy
from hadas_jax.spaces import MBConvSpace, available_exits
from hadas_jax.spaces.footprint import footprint
from hw_models import Device

_ROUNDS = 16  # of breeding for every time that the supernet is asked


class _Known(NamedTuple):
    """What was evaluated, and what candidates are measured by.

    Attributes:
        genomes: int32[A, G].
        correct: uint32[A, E + 1, W].
        too_large: float32[A], by how much a backbone has too many weights.
        size: int32[], rows that hold a backbone.
        device: The cost model.
        limits: float32[3].
        config_limits: Likewise on exit configurations.
        reference: float32[3].
    """

    genomes: jax.Array
    correct: jax.Array
    too_large: jax.Array
    size: jax.Array
    device: Device
    limits: jax.Array
    config_limits: ConfigLimits | None
    reference: jax.Array


class _Found(NamedTuple):
    """Carried from round to round: the strategy's state, the table of `HadasState`, candidates of every backbone."""

    outer: State
    table: jax.Array
    versions: jax.Array


def joint_cardinalities(space: MBConvSpace, device: Device) -> tuple[int, ...]:
    """Returns how many values each of the G + E + 3 genes of a candidate has."""
    clocks = (len(table) for table in (device.core_hz, device.memory_hz, device.host_hz))
    return (*(int(c) for c in space.codec.cardinalities), *[2] * space.num_exits, *clocks)


@dataclass(frozen=True, eq=False)
class FlatHadas(Hadas):
    """The engine over one space and device; attributes as those of `Hadas`."""

    @cached_property
    def strategy(self) -> Elitist:
        """Of the joint genomes."""
        cardinalities = joint_cardinalities(self.space, self.device)
        settings = self.settings
        return load_strategy(settings.strategy, population_size=settings.candidates, cardinalities=cardinalities)

    def init(self, key: jax.Array) -> HadasState:
        """Returns the state before the first generation: its backbones, each with random exits and clocks, in turn."""
        backbone_key, rest_key = jax.random.split(key)
        backbones, archive = self._first(backbone_key)
        rng = np.random.default_rng(np.asarray(jax.random.key_data(rest_key)))
        rest = self.strategy.cardinalities[backbones.shape[1] :]
        rows = np.arange(self.settings.candidates) % len(backbones)
        drawn = rng.integers(0, rest, (len(rows), len(rest)), np.int32)
        return self._start(np.concatenate([backbones[rows], drawn], axis=1), archive)

    def generation(self, state: HadasState, key: jax.Array) -> tuple[HadasState, dict[str, np.ndarray]]:
        """Evaluates new backbones of bred candidates, then breeds among all that are known.

        Args:
            state: Of the generation before.
            key: Typed PRNG key.

        Returns:
            The next state, and its figures.
        """
        ask_key, tell_key, run_key = jax.random.split(key, 3)
        first = not state.archive.examined.any()
        asked, outer = state.outer.population, state.outer
        if not first:
            asked, outer = self.strategy.ask(ask_key, state.outer, self.params)
        G = state.archive.genomes.shape[1]
        archive = self._evaluated(
            state.archive, state.archive.unseen(np.asarray(asked)[:, :G])[: self.settings.population]
        )
        known = self._known(archive)
        start = _Found(outer, jnp.asarray(state.table), jnp.zeros(len(archive.genomes), jnp.int32))
        tell = partial(_tell, self.space, self.samples, self.strategy, first=first)
        told = tell(tell_key, jnp.asarray(asked), start, self.params, known)
        breed = partial(_breed, self.space, self.samples, self.strategy, rounds=_ROUNDS - 1)
        found = breed(run_key, told, self.params, known)
        return self._told(found.outer, self._credited(archive, found), np.asarray(found.table))

    def _known(self, archive: Archive) -> _Known:
        return _Known(
            genomes=jnp.asarray(archive.genomes),
            correct=jnp.asarray(archive.correct),
            too_large=jnp.maximum(jnp.asarray(archive.params) / self.constraints.params - 1, 0),
            size=jnp.asarray(archive.size),
            device=self.device,
            limits=jnp.asarray(self.constraints.objectives),
            config_limits=self.config_limits,
            reference=jnp.asarray(self.reference),
        )

    def _credited(self, archive: Archive, found: _Found) -> Archive:
        """The archive with the candidates of each backbone counted, and a merit for those that hold the front.

        The merit is the share of the front's members that have the backbone; as many backbones have one as the nested
        engine would have examined by now.
        """
        outer, G = found.outer, archive.genomes.shape[1]
        backbones = np.asarray(outer.population)[:, :G]
        rows = np.asarray(_nearest(self._known(archive), jnp.asarray(backbones)))
        on_front = np.asarray(outer.ranks) == np.min(outer.ranks)
        counts = np.bincount(rows[on_front], minlength=len(archive.genomes))
        most = self.elites * -(-int(archive.size) // self.settings.population)
        best = np.argsort(-counts, kind="stable")[:most]
        merit = np.full_like(archive.merit, np.nan)
        merit[best] = np.where(counts[best] > 0, counts[best] / counts.sum(), np.nan)
        return dataclasses.replace(archive, merit=merit, versions=archive.versions + np.asarray(found.versions))


def _nearest(known: _Known, backbones: jax.Array) -> jax.Array:
    """Rows int32[C] of the known backbones nearest to int32[C, G], by the sum of the distances of their genes."""
    apart = jnp.zeros((len(backbones), len(known.genomes)), jnp.int32)
    for gene in range(backbones.shape[1]):
        apart = apart + jnp.abs(backbones[:, gene, None] - known.genomes[None, :, gene])
    empty = jnp.arange(len(known.genomes)) >= known.size
    return jnp.argmin(jnp.where(empty[None], jnp.int32(2**31 - 1), apart), axis=1).astype(jnp.int32)


def _evaluate(
    space: MBConvSpace, samples: int, asked: jax.Array, known: _Known
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """What candidates do, spread over all devices.

    Args:
        space: Static.
        samples: Static, validation samples.
        asked: int32[C, G + E + 3].
        known: What candidates are measured by.

    Returns:
        Rows of their backbones int32[C], the candidates with these and without exits that those lack
        int32[C, G + E + 3], objectives float32[C, 3] and violation float32[C].
    """
    devices = np.array(jax.devices())
    if len(asked) % len(devices) == 0:
        spread = NamedSharding(Mesh(devices, ("population",)), PartitionSpec("population"))
        asked = jax.lax.with_sharding_constraint(asked, spread)
    G, E = known.genomes.shape[1], space.num_exits
    rows = _nearest(known, asked[:, :G])
    backbones = known.genomes[rows]
    designs = jax.vmap(space.decode)(backbones)
    available = jax.vmap(partial(available_exits, space))(designs)
    exits = asked[:, G : G + E] * available.astype(jnp.int32)
    one = partial(_candidate, space, samples, known)
    objectives, excess = jax.vmap(one)(designs, known.correct[rows], exits, asked[:, G + E :])
    violation = jnp.maximum(jnp.maximum(excess, known.too_large[rows]), 0)
    return rows, jnp.concatenate([backbones, exits, asked[:, G + E :]], axis=1), objectives, violation


def _candidate(
    space: MBConvSpace,
    samples: int,
    known: _Known,
    design: Any,
    correct: jax.Array,
    exits: jax.Array,
    clocks: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Objectives float32[3] of one candidate under the ideal mapping, and its excess over the limits float32[]."""
    names = ("core_hz", "memory_hz", "host_hz")
    chosen: dict[str, Any] = {name: getattr(known.device, name)[clocks[n]][None] for n, name in enumerate(names)}
    costs = segment_costs(space, design, dataclasses.replace(known.device, **chosen))
    stats = Stops.ideal(correct, samples=samples).evaluate(exits[None])
    latency, energy = (jnp.sum(stats.frequencies[0] * cost[:, 0]) for cost in (costs.latency_s, costs.energy_j))
    objectives = (stats.error[0], latency, energy)
    excess = relative_excess(objectives, known.limits)
    if known.config_limits is not None:
        path = percentile_paths(stats.frequencies, 99, samples=samples)[0].astype(jnp.float32)
        excess = jnp.maximum(excess, known.config_limits.excess(jnp.sum(path * costs.latency_s[:, 0])))
        excess = jnp.maximum(excess, known.config_limits.size_excess(footprint(space, design), exits > 0))
    return jnp.stack(objectives), excess


@partial(jax.jit, static_argnums=(0, 1, 2), static_argnames=("first",))
def _tell(
    space: MBConvSpace,
    samples: int,
    strategy: Elitist,
    key: jax.Array,
    asked: jax.Array,
    found: _Found,
    params: Any,
    known: _Known,
    *,
    first: bool = False,
) -> _Found:
    """Evaluates candidates that were asked for, and selects."""
    rows, candidates, objectives, violation = _evaluate(space, samples, asked, known)
    genomes = candidates if strategy.accepts_any else asked
    if first:
        outer = strategy.init(key, genomes, objectives, params, violation=violation)
    else:
        outer, _ = strategy.tell(key, genomes, objectives, found.outer, params, violation=violation)
    table = inner.listed_table(objectives, violation <= 0, longest=known.reference[1])
    return _Found(outer, jnp.minimum(found.table, table), found.versions.at[rows].add(1))


@partial(jax.jit, static_argnums=(0, 1, 2), static_argnames=("rounds",))
def _breed(
    space: MBConvSpace,
    samples: int,
    strategy: Elitist,
    key: jax.Array,
    found: _Found,
    params: Any,
    known: _Known,
    *,
    rounds: int,
) -> _Found:
    """So many rounds of breeding among known backbones."""

    def step(found: _Found, key: jax.Array) -> tuple[_Found, None]:
        ask_key, tell_key = jax.random.split(key)
        asked, outer = strategy.ask(ask_key, found.outer, params)
        return _tell(space, samples, strategy, tell_key, asked, found._replace(outer=outer), params, known), None

    return jax.lax.scan(step, found, jax.random.split(key, rounds))[0]
