"""Levels of a result by hand, for suites about what comes after a search."""

from hadas_jax.evaluation import NO_DIFFERENCE, Difference
from hadas_jax.methods import Level
from hadas_jax.methods.hadas.results import POLICY_NAMES, Versus


def level(accuracy, static, *, exits, clocks, static_dvfs=None, difference=NO_DIFFERENCE, as_accurate=None) -> Level:
    """A level whose dynamic networks all differ alike from both static ones.

    Args:
      accuracy: of the level.
      static: Design without exits.
      exits: Design by policy.
      clocks: Design by policy.
      static_dvfs: Design; None: the static one.
      difference: of the dynamic networks from the static ones.
      as_accurate: see `Level`.
    """
    assert isinstance(difference, Difference)
    same = Versus(NO_DIFFERENCE, NO_DIFFERENCE)
    names = [f"{policy} {variant}" for policy in POLICY_NAMES for variant in ("exits", "exits_and_clocks")]
    return Level(
        accuracy=accuracy,
        static=static,
        static_dvfs=static if static_dvfs is None else static_dvfs,
        exits=exits,
        exits_and_clocks=clocks,
        versus={"static": same, "static_dvfs": same, **dict.fromkeys(names, Versus(difference, difference))},
        as_accurate=as_accurate,
    )
