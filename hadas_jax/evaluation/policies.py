"""When a sample stops: at the first exit that is right, or at the first that is sure enough.

The ideal mapping (HADAS, arXiv 2212.03354) needs the label and is an upper bound. A deployable policy compares
a score with a threshold per exit. Thresholds are set by conformal risk control (Angelopoulos et al., arXiv
2208.02814): the expected share of samples that an exit harms, that is, stops wrongly although the final
classifier is right, stays at or below a level, for samples exchangeable with the calibration ones.
Shapes: E exits, N samples, R risk levels.
"""

import jax
import jax.numpy as jnp

from hadas_jax.evaluation.accuracy import Outcomes

POLICIES = ("confidence", "entropy", "learned")


def scores(outcomes: Outcomes, policy: str) -> jax.Array:
    """Returns float32[..., E, N]: how sure every exit is, higher is surer.

    Raises:
      ValueError: an unknown policy; the names are listed.
    """
    if policy not in POLICIES:
        raise ValueError(f"unknown policy {policy!r}: expected one of {', '.join(POLICIES)}")
    score = {
        "confidence": outcomes.confidence,
        "entropy": -outcomes.entropy,
        "learned": outcomes.learned,
    }[policy]
    return score[..., :-1, :]


def ideal_stops(outcomes: Outcomes) -> jax.Array:
    """Returns bool[..., E, N]: a sample stops wherever the exit is right."""
    return outcomes.correct[..., :-1, :]


def threshold_stops(score: jax.Array, thresholds: jax.Array) -> jax.Array:
    """Returns bool[E, N]: a sample stops where its score [E, N] is at least the exit's threshold [E]."""
    return score >= thresholds[:, None]


def calibrate_thresholds(score: jax.Array, correct: jax.Array, levels: jax.Array) -> jax.Array:
    """Sets the lowest threshold of every exit that keeps its risk at or below each level.

    With n samples of which h are harmed at a threshold, the risk is bounded by (h + 1) / (n + 1).

    Args:
      score: float32[E, N], on the calibration split.
      correct: bool[E + 1, N], the final classifier last.
      levels: float32[R], shares of all samples.

    Returns:
      float32[R, E]; +inf where not even one sample may stop.
    """
    harm = ~correct[:-1] & correct[-1:]
    samples = score.shape[1]

    def one_exit(score: jax.Array, harm: jax.Array) -> jax.Array:
        order = jnp.argsort(-score)
        ranked = score[order]
        harmed = jnp.cumsum(harm[order].astype(jnp.int32))
        # Samples of equal score stop together: only the last of each tie is a threshold.
        last = jnp.append(ranked[1:] < ranked[:-1], True)
        risk = jnp.where(last, (harmed + 1).astype(jnp.float32) / (samples + 1), jnp.inf)

        def lowest(level: jax.Array) -> jax.Array:
            return jnp.min(jnp.where(risk <= level, ranked, jnp.inf))

        return jax.vmap(lowest)(levels)

    return jax.vmap(one_exit, out_axes=1)(score, harm)
