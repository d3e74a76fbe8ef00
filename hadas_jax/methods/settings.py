"""Settings of a HADAS run: what the command line, a config file and a notebook share."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from hadas_jax.evaluation import POLICIES
from hadas_jax.methods.hadas import INNER, MERITS
from hadas_jax.methods.limits import Limits
from hadas_jax.methods.proposals import SurrogateProposer
from hadas_jax.search import is_strategy, strategy_names
from hw_models import Device, load_device, with_clocks


@dataclass(frozen=True)
class Settings:
    """Settings of a HADAS run."""

    dataset: str = "digits"
    """digits, or npz:FILE with the arrays images [N, H, W, C] and labels [N]."""
    device: str = "agx-xavier-gpu"
    """A device that comes with the package, or the path of a device file."""
    number_format: str | None = None
    """Format that the network will run in on the device: fp32, fp16 or int8; by default the device's first."""
    power_mode: str | None = None
    """A power mode of the device: no clock goes above its caps."""
    core_mhz: tuple[float, ...] = ()
    """Settings of the core clock to search; by default all that the device (in its power mode) has."""
    memory_mhz: tuple[float, ...] = ()
    """Settings of the memory clock to search."""
    host_mhz: tuple[float, ...] = ()
    """Settings of the host clock to search."""
    space: str = "digits"
    """The space of backbones."""
    population: int = 64
    """Backbones per generation."""
    generations: int = 7
    """Generations of the outer search, the first, random one included."""
    elite_ratio: float = 0.15
    """Share of a population that goes to the inner search."""
    strategy: str = "NSGA2"
    """Of the outer search: NSGA2, NSGA3, RandomSearch, or one of evosax by its name, such as DifferentialEvolution."""
    inner: str = "auto"
    """Inner search: exact, evolved, or auto: exact for backbones with few enough exits."""
    merit: str = "hypervolume"
    """What the inner search ranks backbones by: hypervolume of their dynamic versions, or their best score."""
    gamma: float = 1.0
    """Exponent of the dissimilarity of exits in the dynamic score."""
    surrogate: bool = False
    """Let an ensemble trained on what was evaluated choose what to evaluate next."""
    gradient_seeds: int = 32
    """With --surrogate, descents along its gradient and the cost model's that its choice starts from; 0 for none."""
    warm_start: tuple[str, ...] = ()
    """Backbones of the first generation: published names (a0 to a6), or the front.json of another run."""
    max_latency_ms: float | None = None
    """Limit of the mean latency of a sample."""
    max_energy_mj: float | None = None
    """Limit of the mean energy of a sample."""
    min_accuracy: float | None = None
    """Limit of the accuracy, a share between 0 and 1."""
    max_params: int | None = None
    """Limit of the number of weights of a backbone, exit heads aside."""
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
    per_exit_thresholds: bool = False
    """Search the risk level of each exit by itself; otherwise the exits of a design share one."""
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
        for name in ("number_format", "power_mode"):
            if not isinstance(getattr(self, name), str | None):
                raise ValueError(f"{flag(name)}: expected text, got {getattr(self, name)!r}")
        for name in ("core_mhz", "memory_mhz", "host_mhz"):
            clocks = getattr(self, name)
            if not isinstance(clocks, tuple):
                raise ValueError(f"{flag(name)}: expected a list of clocks in MHz, got {clocks!r}")
            for mhz in clocks:
                _check(name, mhz, float, above=0)
        for name, choices in (
            ("policy", POLICIES),
            ("inner", INNER),
            ("merit", MERITS),
            ("strategy", strategy_names()),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(f"{flag(name)}: expected one of {', '.join(choices)}, got {getattr(self, name)!r}")
        if not is_strategy(self.strategy):
            raise ValueError(f"--strategy: expected one of {', '.join(strategy_names())}, got {self.strategy!r}")
        _check("gamma", self.gamma, float, lowest=0)
        _check("gradient_seeds", self.gradient_seeds, int, lowest=0, highest=SurrogateProposer.population)
        for name in ("surrogate", "per_exit_thresholds"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{flag(name)}: expected true or false, got {getattr(self, name)!r}")
        if not isinstance(self.warm_start, tuple) or not all(isinstance(name, str) for name in self.warm_start):
            raise ValueError(f"--warm-start: expected names or files, got {self.warm_start!r}")
        for name in ("max_latency_ms", "max_energy_mj"):
            if getattr(self, name) is not None:
                _check(name, getattr(self, name), float, above=0)
        if self.min_accuracy is not None:
            _check("min_accuracy", self.min_accuracy, float, lowest=0, highest=1)
        if self.max_params is not None:
            _check("max_params", self.max_params, int, lowest=1)

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
        # YAML and JSON know lists only.
        plain: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
        }
        try:
            return cls(**plain)
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from error

    @property
    def limits(self) -> Limits:
        """What networks may cost at most."""
        return Limits(
            max_latency_ms=self.max_latency_ms,
            max_energy_mj=self.max_energy_mj,
            min_accuracy=self.min_accuracy,
            max_params=self.max_params,
        )

    def load_device(self) -> Device:
        """Loads the device in its power mode, with the clocks to search and the number format to run in.

        Raises:
          ValueError: the device does not have what is asked for.
        """
        device = load_device(self.device, mode=self.power_mode)
        if self.number_format is not None:
            names = [form.name.lower() for form in device.formats]
            if self.number_format not in names:
                raise ValueError(
                    f"--number-format: expected one that {device.name} runs ({', '.join(names)}), "
                    f"got {self.number_format!r}"
                )
            chosen = device.formats[names.index(self.number_format)]
            others = tuple(form for form in device.formats if form != chosen)
            device = dataclasses.replace(device, formats=(chosen, *others))
        core, memory, host = (
            [1e6 * mhz for mhz in mhzs] or None for mhzs in (self.core_mhz, self.memory_mhz, self.host_mhz)
        )
        return with_clocks(device, core_hz=core, memory_hz=memory, host_hz=host)


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
