"""What a deployed network does where images are not like those that its thresholds were set on.

Thresholds promise what they promise for images like the calibration ones. Under a corruption
(`hadas_jax.evaluation.corruptions`) more or fewer samples stop early, whether exits are right or not: accuracy and mean
cost of the same network, thresholds and clocks say where the promise ends.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hadas_jax.data import LabelledImages
from hadas_jax.deploy.given import GivenSegments
from hadas_jax.deploy.operating_points import ExitCosts
from hadas_jax.deploy.static_network import StaticNetwork, evaluate, outcomes_at_exits
from hadas_jax.evaluation.corruptions import CORRUPTIONS, corrupted
from hadas_jax.evaluation.early_exit import percentile_exit

CLEAN = "none"


@dataclass(frozen=True)
class UnderCorruption:
    """What a deployed network does on the images of a split under one corruption.

    Attributes:
        corruption: One of `CORRUPTIONS`, or `CLEAN` for the images as they are.
        strength: 1 to 3, or 0.
        accuracy: When deployed.
        classifier_accuracy: Of the classifier alone, for all samples.
        latency_s: Mean of a sample.
        p99_s: The latency that 99 % of the samples keep.
        energy_j: Mean of a sample.
        shares: Of the samples that stop at each exit, and last at the classifier.
    """

    corruption: str
    strength: int
    accuracy: float
    classifier_accuracy: float
    latency_s: float
    p99_s: float
    energy_j: float
    shares: tuple[float, ...]

    @property
    def stopped(self) -> float:
        """Share of the samples that stop at an exit."""
        return 1.0 - self.shares[-1]

    def at_measured(self, latency_s: Sequence[float], energy_j: Sequence[float]) -> "UnderCorruption":
        """Returns the same with the costs of a sample that stops at each exit, and last at the classifier."""
        longest = percentile_exit(self.shares, 99)
        latency, energy = (float(np.dot(self.shares, costs)) for costs in (latency_s, energy_j))
        return dataclasses.replace(self, latency_s=latency, p99_s=latency_s[longest], energy_j=energy)


def under_corruptions(
    network: StaticNetwork | GivenSegments, data: LabelledImages, *, seed: int = 0
) -> tuple[UnderCorruption, ...]:
    """Evaluates a network on a split as it is, and under every corruption at every strength.

    Args:
        network: The network, with the thresholds and clocks that it is deployed with.
        data: The split.
        seed: Of the noise.

    Raises:
        ValueError: The network's clocks are none of its device.
    """
    costs, labels = ExitCosts.of(network.architecture), np.asarray(data.labels)

    def measured(corruption: str, strength: int) -> UnderCorruption:
        images = data if strength == 0 else corrupted(data, corruption, strength, seed=seed)
        outcomes = outcomes_at_exits(*network.predict(images), labels)
        found = evaluate(network.architecture, outcomes, costs=costs)
        return UnderCorruption(
            corruption=corruption,
            strength=strength,
            accuracy=found.deployable.accuracy,
            classifier_accuracy=found.static.accuracy,
            latency_s=found.deployable.latency_s,
            p99_s=found.deployable.latency_s if found.percentiles is None else found.percentiles.p99_s,
            energy_j=found.deployable.energy_j,
            shares=tuple(found.shares),
        )

    strengths = [(name, strength + 1) for name, amounts in CORRUPTIONS.items() for strength in range(len(amounts))]
    return tuple(measured(*each) for each in [(CLEAN, 0), *strengths])
