"""Settings of an EH-DNAS search: what the command line, a config file and a notebook share."""

from dataclasses import dataclass
from typing import ClassVar

from hadas_jax.data.settings import DataSettings
from hadas_jax.methods.eh_dnas.hardware import FORMS, METRICS, Constraint
from hadas_jax.methods.eh_dnas.search import RELAXATIONS
from hadas_jax.runs.settings import check_choice, check_fields, check_number, check_numbers
from hadas_jax.spaces.darts_costs import PARADIGMS
from hadas_jax.training import AUGMENTATIONS, DTYPES
from hw_models.predictors import KINDS

ORDERS = ("first", "second")
PRICED = ("data", "e2e-perf")


@dataclass(frozen=True)
class DnasSettings(DataSettings):
    """Settings of an EH-DNAS search; half of the training images is for the weights, half for the architecture."""

    PATHS: ClassVar[tuple[str, ...]] = (*DataSettings.PATHS, "predictor")
    NAMES_OR_PATHS: ClassVar[tuple[str, ...]] = ("hardware", "fpga")

    hardware: str = "generic"
    """What the network is for: generic or pipeline, the accelerators of E2E-Perf, or a device (hadas devices list)."""
    fpga: str = "ku115"
    """Of an accelerator: an FPGA that comes with the package, or the path of an FPGA file."""
    predictor: str | None = None
    """Of an accelerator's throughput, from hadas dnas fit-predictor; by default one is fitted as the search starts."""
    predictor_kind: str = "mlp"
    """Of the predictor that is fitted: mlp, embedding (as in EH-DNAS) or lookup (a table of operations)."""
    predictor_samples: int = 200_000
    """Random networks that it is fitted to."""
    power_mode: str | None = None
    """A power mode of the device: no clock goes above its caps."""
    number_format: str | None = None
    """Format that the network will run in on the device: fp32, fp16 or int8; by default the device's first."""
    search_clocks: bool = False
    """Choose the device's clocks together with the architecture, instead of the highest."""
    core_mhz: tuple[float, ...] = ()
    """Settings of the core clock to choose from; by default all that the device (in its power mode) has."""
    memory_mhz: tuple[float, ...] = ()
    """Settings of the memory clock."""
    host_mhz: tuple[float, ...] = ()
    """Settings of the host clock."""
    minimise: str = "latency"
    """Cost in the loss: latency (of an accelerator 1 / throughput), energy, or edp, their product."""
    weight: float = 0.1
    """Of that cost in the loss, the paper's lambda; 0 with no budget is plain DARTS."""
    form: str = "log"
    """Of that cost in the loss: log, or relative to the cost of a random network."""
    min_fps: float | None = None
    """Budget: least images per second."""
    max_latency_ms: float | None = None
    """Budget: most latency of an image on a device."""
    max_energy_mj: float | None = None
    """Budget: most energy of an image on a device."""
    budget_ascent: float = 0.02
    """Step of a budget's multiplier in the loss."""
    channels: int = 16
    """Of the search network's first cell, and of the network that is priced."""
    cells: int = 8
    """Of both; those at a third and two thirds of the way are reduce cells."""
    priced: str = "data"
    """Network that costs are of: data, one of this size for these images, or e2e-perf, the one of E2E-Perf's published
    figures: 16 channels, 8 cells, CIFAR-10."""
    order: str = "second"
    """Of the gradient: second looks one step of the weights ahead, first does not."""
    relaxation: str = "softmax"
    """Of operations in the search network: softmax, or gumbel, which samples them."""
    temperature: tuple[float, float] = (5.0, 0.5)
    """Of gumbel, at the start and at the end."""
    epochs: int = 50
    """Epochs of the halves of the training images."""
    batch: int = 64
    """Images per step, of each half."""
    learning_rate: float = 0.025
    """Peak learning rate of the weights; it falls to 0.001 by a cosine."""
    weight_decay: float = 3e-4
    """Of the weights."""
    alpha_learning_rate: float = 3e-3
    """Of the architecture; DARTS has 3e-4 for its 19,500 steps on CIFAR-10."""
    alpha_weight_decay: float = 1e-3
    """Of the architecture."""
    augmentation: str = "affine"
    """Of training images: none, affine, crop-flip or randaugment."""
    dtype: str = "float32"
    """What the network computes in: float32 or bfloat16."""
    remat: bool = True
    """Compute activations twice instead of keeping them: a tenth of the memory at about the same speed on CPUs."""
    seed: int = 0
    """Of everything random."""

    def __post_init__(self) -> None:
        """Raises `ValueError` where a setting does not fit, by its flag."""
        super().__post_init__()
        check_fields(self, ("hardware", "fpga"), str, "text")
        check_fields(self, ("predictor", "power_mode", "number_format"), str, "text", optional=True)
        check_fields(self, ("search_clocks", "remat"), bool, "true or false")
        for name in ("epochs", "batch", "predictor_samples"):
            check_number(name, getattr(self, name), int, lowest=1)
        check_number("channels", self.channels, int, lowest=2)
        check_number("cells", self.cells, int, lowest=3)  # normal cells besides the two reduce cells
        check_number("seed", self.seed, int, lowest=0)
        for name in ("learning_rate", "alpha_learning_rate", "budget_ascent"):
            check_number(name, getattr(self, name), float, above=0)
        for name in ("weight", "weight_decay", "alpha_weight_decay"):
            check_number(name, getattr(self, name), float, lowest=0)
        for name in ("min_fps", "max_latency_ms", "max_energy_mj"):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), float, above=0)
        for name in ("core_mhz", "memory_mhz", "host_mhz"):
            check_numbers(self, name, float, "clocks in MHz")
        check_numbers(self, "temperature", float, "two temperatures")
        if len(self.temperature) != 2:
            raise ValueError(f"--temperature: expected two numbers, got {len(self.temperature)}")
        for name, choices in (
            ("predictor_kind", KINDS),
            ("minimise", METRICS),
            ("form", tuple(FORMS)),
            ("priced", PRICED),
            ("order", ORDERS),
            ("relaxation", RELAXATIONS),
            ("augmentation", AUGMENTATIONS),
            ("dtype", DTYPES),
        ):
            check_choice(self, name, choices)
        if self.is_accelerator:
            self._check_accelerator()

    @property
    def is_accelerator(self) -> bool:
        """Whether the hardware is an accelerator of E2E-Perf."""
        return self.hardware in PARADIGMS

    @property
    def device(self) -> str:
        """The device, where the hardware is one."""
        return self.hardware

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        """What a network may cost at most."""
        latencies = []
        if self.max_latency_ms is not None:
            latencies.append(1e-3 * self.max_latency_ms)
        if self.min_fps is not None:
            latencies.append(1.0 / self.min_fps)
        constraints = [Constraint("latency", min(latencies))] if latencies else []
        if self.max_energy_mj is not None:
            constraints.append(Constraint("energy", 1e-3 * self.max_energy_mj))
        return tuple(constraints)

    def _check_accelerator(self) -> None:
        """Raises for what only devices have."""
        if self.minimise != "latency":
            raise ValueError(f"--minimise: expected latency for a {self.hardware} accelerator, got {self.minimise!r}")
        for name in ("max_latency_ms", "max_energy_mj", "power_mode", "number_format"):
            if getattr(self, name) is not None:
                raise ValueError(
                    f"--{name.replace('_', '-')}: expected with a device as --hardware, got it with {self.hardware}; "
                    "budgets of accelerators are --min-fps"
                )
        if self.search_clocks:
            raise ValueError(f"--search-clocks: expected with a device as --hardware, got it with {self.hardware}")
