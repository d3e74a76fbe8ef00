"""Settings of a HADAS run: what the command line, a config file and a notebook share."""

import dataclasses
from dataclasses import dataclass

from hadas_jax.evaluation import POLICIES


@dataclass(frozen=True)
class Settings:
    """Settings of a HADAS run."""

    dataset: str = "digits"
    """digits, or npz:FILE with the arrays images [N, H, W, C] and labels [N]."""
    device: str = "agx-xavier-gpu"
    """A device that comes with the package, or the path of a device file."""
    space: str = "digits"
    """The space of backbones."""
    population: int = 64
    """Backbones per generation."""
    generations: int = 7
    """Generations of the outer search, the first, random one included."""
    elite_ratio: float = 0.15
    """Share of a population that goes to the inner search."""
    epochs: int = 28
    """Epochs of supernet training."""
    exit_epochs: int = 16
    """Epochs of exit training."""
    batch: int = 64
    """Images per training step."""
    learning_rate: float = 0.1
    """Peak learning rate of the supernet."""
    exit_learning_rate: float = 0.05
    """Peak learning rate of the exit heads."""
    policy: str = "confidence"
    """What the deployable policy compares with thresholds: confidence, entropy or learned."""
    front_size: int = 64
    """Designs to report of each front."""
    group: int = 4
    """Backbones that run side by side; more use more memory."""
    seed: int = 0
    """Of everything random."""

    def __post_init__(self) -> None:
        for name in ("population", "generations", "epochs", "exit_epochs", "batch", "front_size", "group"):
            _check(name, getattr(self, name), int, lowest=1)
        _check("seed", self.seed, int, lowest=0)
        for name in ("learning_rate", "exit_learning_rate"):
            _check(name, getattr(self, name), float, above=0)
        _check("elite_ratio", self.elite_ratio, float, above=0, highest=1)
        for name in ("dataset", "device", "space", "policy"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{flag(name)}: expected text, got {getattr(self, name)!r}")
        if self.policy not in POLICIES:
            raise ValueError(f"--policy: expected one of {', '.join(POLICIES)}, got {self.policy!r}")

    @classmethod
    def from_mapping(cls, values: object, *, source: str) -> "Settings":
        """Builds settings from the content of a file.

        Raises:
          ValueError: no mapping, an unknown name, or a value that does not fit.
        """
        if not isinstance(values, dict):
            raise ValueError(f"{source}: expected settings by name, got {type(values).__name__}")
        known = [field.name for field in dataclasses.fields(cls)]
        unknown = [str(name) for name in values if name not in known]
        if unknown:
            raise ValueError(f"{source}: unknown setting {unknown[0]!r}: expected some of {', '.join(known)}")
        try:
            return cls(**values)
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from error


def flag(name: str) -> str:
    """Returns the command-line flag of a setting."""
    return "--" + name.replace("_", "-")


def _check(
    name: str,
    value: object,
    kind: type,
    *,
    lowest: float | None = None,
    above: float | None = None,
    highest: float | None = None,
) -> None:
    wanted = "a whole number" if kind is int else "a number"
    bounds = [f"of at least {lowest}"] if lowest is not None else []
    bounds += [f"above {above}"] if above is not None else []
    bounds += [f"of at most {highest}"] if highest is not None else []
    right = isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
    if right:
        assert isinstance(value, int | float)
        right = (
            (lowest is None or value >= lowest)
            and (above is None or value > above)
            and (highest is None or value <= highest)
        )
    if not right:
        raise ValueError(f"{flag(name)}: expected {wanted} {' and '.join(bounds)}, got {value!r}")
