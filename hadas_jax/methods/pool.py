"""The backbones of a search that designs are taken from, and the fronts of all their dynamic versions.

Shapes: P backbones, G genes.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from hadas_jax.methods.archive import Archive
from hadas_jax.methods.designs import Candidates, merge, non_dominated
from hadas_jax.methods.limits import Limits
from hadas_jax.methods.plan_fronts import evolved_plans, first_of_equal, plans_front, subset_front
from hadas_jax.methods.plans import Anatomy, Stops
from hadas_jax.methods.static import static_costs
from hadas_jax.spaces import MBConvSpace
from hw_models import Device


def pool_of(archive: Archive, space: MBConvSpace, device: Device, *, limits: Limits) -> np.ndarray:
    """Returns the different genomes [P, G] that the inner engine examined, those on the static front, and the extremes.

    Backbones with more weights than the limits allow are left out.
    """
    rows = np.flatnonzero(archive.params[: int(archive.size)] <= limits.params)
    genomes, static, chosen = archive.genomes[rows], archive.static[rows], archive.examined[rows]
    chosen[non_dominated(static)] = True
    extremes = np.stack([space.largest_genome, space.smallest_genome])
    if limits.max_params is not None:
        params = np.asarray(static_costs(space, jnp.asarray(extremes), device)[1])
        extremes = extremes[params <= limits.params]
    return np.unique(np.concatenate([genomes[chosen], extremes]), axis=0)


class PoolFronts:
    """Finds the fronts of a pool: exactly for backbones with few enough plans, by evolution for the others.

    Args:
      backbones: the pool.
      device: whose clocks they run at.
      key: typed PRNG key of the evolution.
      limits: of the search.
      exact_plans: all plans of a backbone are tried where there are at most so many at shared risk levels.
    """

    def __init__(
        self, backbones: Sequence[Anatomy], device: Device, *, key: jax.Array, limits: Limits, exact_plans: int
    ) -> None:
        self._backbones, self._device, self._key = backbones, device, key
        self._limits, self._exact_plans = limits, exact_plans

    def fronts(
        self, stops: Sequence[Stops], *, points: Sequence[int | None], per_exit: bool = False
    ) -> list[Candidates]:
        """Returns a front of the pool for each of some choices of operating points.

        Args:
          stops: of each backbone.
          points: the only operating point to run at; None for all.
          per_exit: breed one risk level per exit for backbones that are on a front with shared ones.
        """
        found = [self._front_of_one(index, stops[index], points) for index in range(len(stops))]
        fronts = [merge(parts) for parts in zip(*found, strict=True)]
        if not per_exit:
            return fronts
        for index in np.unique(np.concatenate([front.backbone for front in fronts])).tolist():
            if self._listable(index, stops[index]):
                bred = self._bred(index, stops[index], points)
                found[index] = [first_of_equal([a, b]) for a, b in zip(found[index], bred, strict=True)]
        return [merge(parts) for parts in zip(*found, strict=True)]

    def _listable(self, index: int, stops: Stops) -> bool:
        return len(stops.stops) << int(self._backbones[index].own.count) <= self._exact_plans

    def _front_of_one(self, index: int, stops: Stops, points: Sequence[int | None]) -> list[Candidates]:
        if self._listable(index, stops):
            return [subset_front(stops, self._backbones[index], index=index, point=point) for point in points]
        return self._bred(index, stops, points)

    def _bred(self, index: int, stops: Stops, points: Sequence[int | None]) -> list[Candidates]:
        backbone, key = self._backbones[index], jax.random.fold_in(self._key, index)
        plans = evolved_plans(key, stops, backbone, self._device, limits=self._limits)
        return [plans_front(stops, backbone, levels=plans, index=index, point=point) for point in points]
