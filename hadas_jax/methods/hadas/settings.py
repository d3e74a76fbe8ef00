"""Settings of a HADAS run: what the command line, a config file and a notebook share."""

from dataclasses import dataclass
from typing import ClassVar

from hadas_jax.evaluation import POLICIES
from hadas_jax.methods.hadas.constraints import Constraints
from hadas_jax.methods.hadas.surrogate import SurrogateAcquisition
from hadas_jax.runs.settings import check_choice, check_fields, check_number, check_numbers
from hadas_jax.search import is_strategy, strategy_names
from hadas_jax.training.settings import TrainingSettings

INNER = ("auto", "exact", "evolved")
MERITS = ("hypervolume", "score")


@dataclass(frozen=True)
class Settings(TrainingSettings):
    """Settings of a HADAS run."""

    PATHS: ClassVar[tuple[str, ...]] = (*TrainingSettings.PATHS, "outcomes")
    NAMES_OR_PATHS: ClassVar[tuple[str, ...]] = (*TrainingSettings.NAMES_OR_PATHS, "device", "warm_start")

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
    policy: str = "confidence"
    """What the deployable policy compares with thresholds: confidence, entropy or learned."""
    per_exit_thresholds: bool = False
    """Search the risk level of each exit by itself; otherwise the exits of a design share one."""
    outcomes: str | None = None
    """Folder that keeps how every backbone did on every image: other searches over the same supernet and images, for
    whatever device, judge only what is not there yet."""
    front_size: int = 64
    """Designs to report of each front."""
    accuracy_tolerance: float = 0.005
    """Share of test images by which a network may be less accurate than the static one and still count as as accurate:
    the 95 % interval of the difference has to stay above its negative."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("population", "generations", "front_size"):
            check_number(name, getattr(self, name), int, lowest=1)
        check_number("elite_ratio", self.elite_ratio, float, above=0, highest=1)
        check_fields(self, ("device", "policy", "strategy"), str, "text")
        check_fields(self, ("number_format", "power_mode", "outcomes"), str, "text", optional=True)
        check_fields(self, ("surrogate", "per_exit_thresholds"), bool, "true or false")
        for name in ("core_mhz", "memory_mhz", "host_mhz"):
            check_numbers(self, name, float, "clocks in MHz")
        for name, choices in (("policy", POLICIES), ("inner", INNER), ("merit", MERITS)):
            check_choice(self, name, choices)
        if not is_strategy(self.strategy):
            raise ValueError(f"--strategy: expected one of {', '.join(strategy_names())}, got {self.strategy!r}")
        check_number("gamma", self.gamma, float, lowest=0)
        check_number("accuracy_tolerance", self.accuracy_tolerance, float, lowest=0, highest=1)
        check_number("gradient_seeds", self.gradient_seeds, int, lowest=0, highest=SurrogateAcquisition.population)
        if not isinstance(self.warm_start, tuple) or not all(isinstance(name, str) for name in self.warm_start):
            raise ValueError(f"--warm-start: expected names or files, got {self.warm_start!r}")
        for name in ("max_latency_ms", "max_energy_mj"):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), float, above=0)
        if self.min_accuracy is not None:
            check_number("min_accuracy", self.min_accuracy, float, lowest=0, highest=1)
        if self.max_params is not None:
            check_number("max_params", self.max_params, int, lowest=1)

    @property
    def limits(self) -> Constraints:
        """What networks may cost at most."""
        return Constraints(
            max_latency_ms=self.max_latency_ms,
            max_energy_mj=self.max_energy_mj,
            min_accuracy=self.min_accuracy,
            max_params=self.max_params,
        )
