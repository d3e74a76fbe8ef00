"""The settings of every command: what the command line, a config file and a notebook share.

One frozen dataclass for each concern, and for each command one that is made of them. Values are checked where they are
made; whatever does not fit is one line, `name: expected ..., got ...`. Every setting has a name of its own, so that
settings can be written flat too: `SearchSettings.of(dataset="digits", generations=3)`; that is also how files hold
them. Nothing here imports JAX.
"""

import dataclasses
import difflib
import functools
import os
import re
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, Union, dataclass_transform, get_args, get_origin

import numpy as np
import pydantic
from pydantic import Field

_Switch = Annotated[bool, Field(strict=True)]
_Count = Annotated[int, Field(strict=True, ge=1)]
_Natural = Annotated[int, Field(strict=True, ge=0)]
_Positive = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
_NonNegative = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
_Finite = Annotated[float, Field(strict=True, allow_inf_nan=False)]
_Rate = Annotated[float, Field(strict=True, ge=0, lt=1, allow_inf_nan=False)]
_Share = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]
_Dtype = Literal["float32", "bfloat16"]
FormatName = Literal["fp32", "fp16", "int8"]
AugmentationName = Literal["none", "affine", "crop-flip", "randaugment"]

_HIGHEST_SEED = 2**32 - 3  # of scikit-learn's divisions, which take the next two as well
_ROUNDING = 1e-6  # of float32 errors, so that the accuracy asked for itself is accepted
_PATHS = ("data_dir", "checkpoint", "resume_from", "outcomes", "predictor", "network", "model")
_NAMES_OR_PATHS = ("space", "device", "warm_start", "hardware", "fpga", "genotype")
_OF_FILES = ("npz", "folder")  # kinds of data sets whose names end in a path
_HOME = re.compile(r"(?P<before>(?:--[\w-]+=)?(?:npz:|folder:)?)(?P<path>~.*)", re.DOTALL)
_KINDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
_BOUNDS = {"ge": "of at least {}", "gt": "above {}", "le": "of at most {}", "lt": "below {}"}
SettingsT = TypeVar("SettingsT")


@dataclass_transform(frozen_default=True)
def _checked(cls: type[SettingsT]) -> type[SettingsT]:
    """Makes a frozen pydantic dataclass whose errors are one line."""
    made = pydantic.dataclasses.dataclass(frozen=True, config={"extra": "forbid"})(cls)
    initialise = made.__init__

    @functools.wraps(initialise)
    def checked(self: Any, *args: Any, **values: Any) -> None:
        try:
            initialise(self, *args, **values)
        except pydantic.ValidationError as error:
            raise ValueError(_message(made, error.errors()[0])) from None

    made.__init__ = checked  # type: ignore[method-assign]
    return made  # type: ignore[return-value]


def _message(kind: type, error: Any) -> str:
    """Turns an error of pydantic into one line that names the setting."""
    raised = error.get("ctx", {}).get("error")
    if raised is not None:  # by the settings themselves
        return str(raised)
    name, *inner = error["loc"]
    annotations = {field.name: field.type for field in dataclasses.fields(kind)}
    if name not in annotations:
        return _unknown(name, list(annotations))
    annotation, value = annotations[name], error["input"]
    if inner and error["type"] != "missing":
        annotation = get_args(annotation)[0]
    text = ", which is text: leave out its quotes" if _is_numeral(value) else ""
    return f"{name}: expected {_expected(annotation)}, got {value!r}{text}"


def _expected(annotation: Any) -> str:
    """Says in words which values an annotation allows."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return _expected(args[0])
    if origin is Literal:
        return f"one of {', '.join(args)}"
    if origin is tuple:
        return f"a list of {'' if args[-1] is ... else f'{len(args)} '}values, each {_expected(args[0])}"
    if origin is Annotated:
        constraints = [each for field in args[1:] for each in getattr(field, "metadata", ())]
        bounds = [words.format(getattr(c, at)) for c in constraints for at, words in _BOUNDS.items() if hasattr(c, at)]
        return f"{_expected(args[0])} {' and '.join(bounds)}".strip()
    return _KINDS.get(annotation, f"{getattr(annotation, '__name__', annotation)}")


def _is_numeral(value: object) -> bool:
    """Whether a value is text that reads as a number."""
    try:
        return isinstance(value, str) and float(value) is not None
    except ValueError:
        return False


def _unknown(name: object, known: list[str]) -> str:
    near = difflib.get_close_matches(str(name).replace("-", "_").lower(), known, n=1)
    nearest = f"{near[0]}, or one of the others: " if near else "some of "
    return f"unknown setting {str(name)!r}: expected {nearest}{', '.join(known)}"


@_checked
class DataSettings:
    """Which images a run is about."""

    dataset: str = "digits"
    """digits, npz:FILE, folder:DIR, or one that tensorflow-datasets prepared: cifar10, cifar100, fashion_mnist, mnist,
    imagenet2012, tfds:NAME."""
    data_dir: str | None = None
    """Where the prepared copy of a tensorflow-datasets set is."""
    image_size: _Count | None = None
    """Height and width that images are brought to when they are read; by default their own."""
    split_seed: Annotated[int, Field(strict=True, ge=0, le=_HIGHEST_SEED)] | None = None
    """Random seed of the division into training, validation, calibration and test images; by default 0. What was made
    of images keeps their division, so beside `checkpoint` it is refused."""
    skip_unreadable: _Switch = False
    """Leave out images that cannot be read, instead of stopping at them."""
    evaluation_images: _Count | None = None
    """Most images of validation, calibration and test each, chosen of these parts; by default all, of streams 10,000
    for the test."""


@_checked
class SupernetSettings:
    """Which supernet a run trains or takes."""

    space: str | None = None
    """The space of backbones by name, or the path of a space file; by default the one of `checkpoint`, or digits for
    images below 20 pixels and small-images for others."""
    resolutions: tuple[_Count, ...] = ()
    """Resolutions to use of those that the space has; by default all."""
    checkpoint: str | None = None
    """Directory of a trained supernet, from hadas train, which trains on, or hadas import-checkpoint; a search takes it
    as it is and trains at most its exits."""


@_checked
class TrainingSettings:
    """How a supernet and its exits are trained."""

    epochs: _Natural = 28
    """Epochs of supernet training; with 0, hadas train keeps the supernet of `checkpoint` and trains exits alone."""
    exit_epochs: _Count = 16
    """Epochs of exit training."""
    batch: _Count = 64
    """Images per training step."""
    learning_rate: _Positive = 0.1
    """Peak learning rate of the supernet."""
    exit_learning_rate: _Positive = 0.05
    """Peak learning rate of the exit heads."""
    weight_decay: _NonNegative = 1e-5
    """Weight decay of kernels."""
    sampled: Annotated[int, Field(strict=True, ge=0, le=256)] = 2
    """Random sub-networks per step, besides the largest and the smallest."""
    sampling: Literal["uniform", "bestup"] = "uniform"
    """How they are drawn: uniform, or bestup: the best of a few near a random size."""
    distillation: Literal["kl", "alpha"] = "kl"
    """What smaller networks learn from the largest by: kl, or alpha, AlphaNet's divergence."""
    label_smoothing: _Rate = 0.1
    """Label smoothing of the largest network's targets."""
    dropout: _Rate = 0.0
    """Dropout rate before the classifier, of the largest network alone."""
    drop_connect: _Rate = 0.0
    """Drop rate of whole blocks, rising with depth, of the largest network alone."""
    augmentation: AugmentationName = "affine"
    """Augmentation of training images: none, affine, crop-flip or randaugment."""
    dtype: _Dtype = "float32"
    """What networks compute in: float32 or bfloat16; weights, statistics and losses are float32."""
    remat: _Switch = False
    """Compute activations twice instead of keeping them: a third of the memory, on CPUs also quicker."""
    cut: _Switch = False
    """Compute the kernel taps and channels alone that a network uses: quicker steps, twice the compilation; with
    `remat`."""
    data_parallel: _Switch = False
    """Split every training batch over all devices; the processes of `coordinator` do so anyway."""
    debug: _Switch = False
    """Check after every step that loss, gradients and weights are finite, and stop at the first that is not, by its
    name; slower."""

    def __post_init__(self) -> None:
        if self.cut and not self.remat:
            raise ValueError("cut: expected with `remat`, which keeps its memory in bounds, got it alone")


@_checked
class EvaluationSettings:
    """How the networks of a supernet are evaluated."""

    stats_batches: _Count = 4
    """Training batches that a backbone's batch-norm statistics are estimated on."""
    eval_batch: _Count | None = None
    """Images at once when networks are evaluated; by default 128 of 32x32 pixels on a CPU, 512 elsewhere, or as many
    pixels."""
    group: _Count | None = None
    """Backbones that are evaluated side by side; by default one on a CPU, 16 elsewhere."""


@_checked
class OperatingSettings:
    """How a device is operated."""

    number_format: str | None = None
    """Format that the network will run in on the device: fp32, fp16 or int8; by default the device's first. A search
    evaluates networks in it, too."""
    power_mode: str | None = None
    """A power mode of the device: no clock goes above its caps."""
    core_mhz: tuple[_Positive, ...] = ()
    """Settings of the core clock to search; by default all that the device (in its power mode) has."""
    memory_mhz: tuple[_Positive, ...] = ()
    """Settings of the memory clock to search."""
    host_mhz: tuple[_Positive, ...] = ()
    """Settings of the host clock to search."""


@_checked
class NestedSearchSettings:
    """How the outer search looks for backbones and the inner one for exits and clocks."""

    engine: Literal["nested", "flat"] = "nested"
    """How to search: nested, the paper's outer and inner search, or flat, backbone, exits and clocks as one genome."""
    population: _Count = 64
    """Backbones per generation; with the engine flat new ones at most, the others having been evaluated before."""
    candidates: _Count = 4096
    """With the engine flat, candidates of backbone, exits and clocks that are bred at once."""
    generations: _Count = 7
    """Generations of the outer search, the first, random one included."""
    elite_ratio: Annotated[float, Field(strict=True, gt=0, le=1, allow_inf_nan=False)] = 0.15
    """Share of a population that goes to the inner search."""
    strategy: str = "NSGA2"
    """Of the outer search: NSGA2, NSGA3, RandomSearch, or one of evosax by its name, such as DifferentialEvolution."""
    inner: Literal["auto", "exact", "evolved"] = "auto"
    """Inner search: exact, evolved, or auto: exact for backbones with few enough exits."""
    merit: Literal["hypervolume", "score"] = "hypervolume"
    """What the inner search ranks backbones by: hypervolume of their dynamic candidates, or their best score."""
    gamma: _NonNegative = 1.0
    """Exponent of the dissimilarity of exits in the dynamic score."""
    surrogate: _Switch = False
    """Let an ensemble trained on what was evaluated choose what to evaluate next."""
    number_formats: tuple[FormatName, ...] = ()
    """Formats of the device to search jointly with backbones, exits and clocks; by default `number_format` alone."""
    gradient_seeds: Annotated[int, Field(strict=True, ge=0, le=256)] = 32
    """With `surrogate`, descents along its gradient and the cost model's that its choice starts from; 0 for none."""
    warm_start: tuple[str, ...] = ()
    """Backbones of the first generation: published names (a0 to a6), or the front.json of another run."""
    resume_from: str | None = None
    """Work directory of another search of the same supernet and images, all of whose evaluated backbones this one
    starts from; device and limits may be others. Settings that are not given are that search's."""

    @property
    def elites(self) -> int:
        """Backbones per generation that go to the inner search.

        With a surrogate all: it learns from merits, which cost far less than what the supernet answers.
        """
        return self.population if self.surrogate else max(1, round(self.elite_ratio * self.population))


@_checked
class Constraints:
    """What a network may cost at most; None: anything."""

    max_latency_ms: _Positive | None = None
    """Limit of the mean latency of a sample."""
    max_p99_latency_ms: _Positive | None = None
    """Limit of the latency that 99 % of the samples keep."""
    max_energy_mj: _Positive | None = None
    """Limit of the mean energy of a sample."""
    min_accuracy: _Share | None = None
    """Limit of the accuracy, a share between 0 and 1."""
    max_params: _Count | None = None
    """Limit of the number of weights of a backbone with batch norm folded in, exit heads aside."""
    max_memory_mb: _Positive | None = None
    """Limit of the peak memory of the activations in MB (10^6 bytes), exits included, in the number format."""
    max_flash_mb: _Positive | None = None
    """Limit of the size of the weights in MB (10^6 bytes), exits included, in the number format."""

    @property
    def objectives(self) -> np.ndarray:
        """Highest error, latency_s and energy_j, float32[3]; +inf for none."""
        highest = [
            None if self.min_accuracy is None else 1 - self.min_accuracy + _ROUNDING,
            None if self.max_latency_ms is None else self.max_latency_ms * 1e-3,
            None if self.max_energy_mj is None else self.max_energy_mj * 1e-3,
        ]
        return np.array([np.inf if value is None else value for value in highest], np.float32)

    @property
    def params(self) -> np.float32:
        """Highest number of weights, +inf for none."""
        return np.float32(np.inf if self.max_params is None else self.max_params)

    @property
    def any(self) -> bool:
        """Whether anything is limited."""
        return self != NO_CONSTRAINTS


NO_CONSTRAINTS = Constraints()


@_checked
class DeploymentSettings:
    """How networks are chosen and made deployable when a search ends."""

    policy: Literal["confidence", "entropy", "learned"] = "confidence"
    """What the deployable policy compares with thresholds: confidence, entropy or learned."""
    per_exit_thresholds: _Switch = False
    """Search the risk level of each exit by itself; otherwise the exits of a design share one."""
    front_size: _Count = 64
    """Designs to report of each front."""
    accuracy_tolerance: _Share = 0.005
    """Share of test images by which a network may be less accurate than the static one and still count as as accurate:
    the 95 % interval of the difference has to stay above its negative."""


@_checked
class RunSettings:
    """What the settings of all commands have in common: they are made of groups, and can be written flat.

    Attributes:
        KIND: The kind of run that they are of, as its work directory says.
    """

    KIND: ClassVar[str]

    @classmethod
    def of(cls, **values: Any) -> Self:
        """Makes settings of values by name, whatever group each is in; the others have their defaults.

        Raises:
            ValueError: One line: an unknown name, or a value that does not fit.

        Examples:
            >>> from hadas_jax.settings import SearchSettings
            >>> SearchSettings.of(dataset="digits", generations=3).search.generations
            3
        """
        groups = cls._groups()
        known = [name for names in groups.values() for name in names]
        unknown = [name for name in values if name not in known]
        if unknown:
            raise ValueError(_unknown(unknown[0], known))
        made: dict[str, Any] = {}
        for field in dataclasses.fields(cls):
            given = {name: values[name] for name in groups[field.name] if name in values}
            if dataclasses.is_dataclass(field.type):
                made[field.name] = field.type(**given)  # type: ignore[operator]
            else:
                made |= given
        return cls(**made)

    @classmethod
    def from_mapping(cls, values: object, *, source: str) -> Self:
        """Makes settings of the content of a file.

        Args:
            values: The content: values by name, lists for tuples, `~` for the home folder.
            source: The file, named in errors.

        Raises:
            ValueError: One line: no mapping, an unknown name, or a value that does not fit.
        """
        if not isinstance(values, dict):
            raise ValueError(f"{source}: expected settings by name, got {type(values).__name__}")
        try:
            return cls.of(**{str(name): _from_file(value) for name, value in values.items()})
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from error

    @classmethod
    def _groups(cls) -> dict[str, list[str]]:
        """The names of the settings in each group; a setting outside of groups is one of its own."""
        return {
            field.name: [each.name for each in dataclasses.fields(field.type)]
            if dataclasses.is_dataclass(field.type)
            else [field.name]
            for field in dataclasses.fields(cls)
        }

    def flat(self) -> dict[str, Any]:
        """Returns all values by name, as files hold them."""
        values = dataclasses.asdict(self)
        return {
            name: values[group][name] if isinstance(values[group], dict) else values[group]
            for group, names in self._groups().items()
            for name in names
        }

    def replace(self, **changes: Any) -> Self:
        """Returns these settings with other values by name, checked as those of `of`."""
        return self.of(**self.flat() | changes)

    def absolute(self) -> Self:
        """Returns these settings with absolute paths, so that they mean the same in every folder."""
        return self.replace(**{name: _absolute(name, value) for name, value in self.flat().items()})


@_checked
class SupernetRunSettings(RunSettings):
    """What training and search have in common: data, a supernet, its training and its evaluation."""

    data: DataSettings = DataSettings()
    supernet: SupernetSettings = SupernetSettings()
    training: TrainingSettings = TrainingSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    seed: _Natural = 0
    """Random seed."""

    def __post_init__(self) -> None:
        checkpoint = self.supernet.checkpoint
        if checkpoint is None and self.training.epochs < 1:
            raise ValueError("epochs: expected a whole number of at least 1 without `checkpoint`, got 0")
        if checkpoint is not None and self.data.split_seed is not None:
            raise ValueError(
                "split_seed and checkpoint: expected one of them, got both; the division of the images that a "
                "checkpoint was made of stays with it"
            )


@_checked
class TrainSettings(SupernetRunSettings):
    """Settings of `hadas train`."""

    KIND: ClassVar[str] = "train"

    exits_for: str | None = None
    """Train the exits of this backbone alone: largest, smallest, or a0 to a6; as the HADAS paper does with
    `exit_epochs` 30, `batch` 64, `exit_learning_rate` 0.01."""


@_checked
class SearchSettings(SupernetRunSettings):
    """Settings of `hadas search`."""

    KIND: ClassVar[str] = "search"

    device: str = "agx-xavier-gpu"
    """A device that comes with the package, or the path of a device file."""
    operating: OperatingSettings = OperatingSettings()
    search: NestedSearchSettings = NestedSearchSettings()
    constraints: Constraints = Constraints()
    deployment: DeploymentSettings = DeploymentSettings()
    outcomes: str | None = None
    """Folder that keeps how every backbone did on every image: other searches over the same supernet and images, for
    whatever device, evaluate only what is not there yet."""

    def __post_init__(self) -> None:
        super().__post_init__()
        formats, one = self.search.number_formats, self.operating.number_format
        if formats and one is not None:
            raise ValueError("number_format and number_formats: expected one of them, got both")
        if len(set(formats)) < len(formats):
            raise ValueError(f"number_formats: expected different formats, got {' '.join(formats)}")


@_checked
class GivenNetworkSettings:
    """A network that is given, how it takes images, and which exits are tried."""

    model: str = ""
    """ONNX file of a classifier of images."""
    mean: tuple[_Finite, ...] = ()
    """Mean of each channel that the model expects to be removed, or one for all, in `value_range`; by default 0."""
    deviation: tuple[_Positive, ...] = ()
    """Standard deviation that it expects channels to be divided by, likewise; by default 1."""
    value_range: tuple[_Finite, _Finite] = (0.0, 1.0)
    """What the model expects bytes 0 and 255 to be, before mean and deviation."""
    layout: Literal["nchw", "nhwc"] = "nchw"
    """How it takes images: nchw, channels first, or nhwc."""
    new_classifier: _Switch = False
    """Train a new classifier for the classes of the data set in place of the model's own."""
    places: Annotated[int, Field(strict=True, ge=1, le=13)] = 10
    """Exits to try, at most: places where one tensor alone passes on, at even steps of the latency."""
    head_epochs: _Count = 40
    """Epochs of the training of heads."""
    memory_mb: _Positive = 2048.0
    """Memory in MB (2^20 bytes) that a batch of images and its activations, and features of heads, may take."""
    features_mb: _Positive = 8192.0
    """Room on disk in MB for features; of more training images than fit a random part is used."""

    def __post_init__(self) -> None:
        low, high = self.value_range
        if not low < high:
            raise ValueError(f"value_range: expected a lower and a higher value, got {low:g} {high:g}")

    def normalisation(self, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Returns mean and standard deviation of each channel for images in 0 .. 1.

        Raises:
            ValueError: Neither one value nor one for each channel.
        """
        low, high = self.value_range
        found = []
        for name, values, default in (("mean", self.mean, 0.0), ("deviation", self.deviation, 1.0)):
            each = values or (default,)
            if len(each) not in (1, channels):
                raise ValueError(f"{name}: expected 1 or {channels} values, got {len(each)}")
            found.append(each * (channels // len(each)))
        mean, deviation = found
        return tuple((m - low) / (high - low) for m in mean), tuple(d / (high - low) for d in deviation)


@_checked
class ExitsSettings(RunSettings):
    """Settings of `hadas exits`: exits and clocks for a network that is given."""

    KIND: ClassVar[str] = "exits"

    given: GivenNetworkSettings = GivenNetworkSettings()
    data: DataSettings = DataSettings()
    device: str = "agx-xavier-gpu"
    """A device that comes with the package, or the path of a device file."""
    operating: OperatingSettings = OperatingSettings()
    constraints: Constraints = Constraints()
    deployment: DeploymentSettings = DeploymentSettings()
    seed: _Natural = 0
    """Random seed."""


@_checked
class AcceleratorSettings:
    """What prices networks on an accelerator of E2E-Perf."""

    fpga: str = "ku115"
    """Of an accelerator: an FPGA that comes with the package, or the path of an FPGA file."""
    predictor: str | None = None
    """Of an accelerator's throughput, from hadas dnas fit-predictor; by default one is fitted as the search starts."""
    predictor_kind: Literal["mlp", "embedding", "lookup"] = "mlp"
    """Of the predictor that is fitted: mlp, embedding (as in EH-DNAS) or lookup (a table of operations)."""
    predictor_samples: _Count = 200_000
    """Random networks that it is fitted to."""


@_checked
class HardwareLossSettings:
    """What the loss of an architecture asks of its hardware."""

    minimise: Literal["latency", "energy", "edp"] = "latency"
    """Cost in the loss: latency (of an accelerator 1 / throughput), energy, or edp, their product."""
    weight: _NonNegative = 0.1
    """Weight of that cost in the loss, the paper's lambda; 0 with no budget is plain DARTS."""
    form: Literal["log", "relative"] = "log"
    """Form of that cost in the loss: log, or relative to the cost of a random network."""
    min_fps: _Positive | None = None
    """Budget: least images per second."""
    max_latency_ms: _Positive | None = None
    """Budget: most latency of an image on a device."""
    max_energy_mj: _Positive | None = None
    """Budget: most energy of an image on a device."""
    budget_ascent: _Positive = 0.02
    """Step of a budget's multiplier in the loss."""


@_checked
class BilevelSettings:
    """How weights and architecture are trained together."""

    order: Literal["first", "second"] = "second"
    """Order of the architecture's gradient: second looks one step of the weights ahead, first does not."""
    relaxation: Literal["softmax", "gumbel"] = "softmax"
    """Relaxation of operations in the search network: softmax, or gumbel, which samples them."""
    temperature: tuple[_Positive, _Positive] = (5.0, 0.5)
    """Temperature of gumbel, at the start and at the end."""
    epochs: _Count = 50
    """Epochs of the halves of the training images."""
    batch: _Count = 64
    """Images per step, of each half."""
    learning_rate: _Positive = 0.025
    """Peak learning rate of the weights; it falls to 0.001 by a cosine."""
    weight_decay: _NonNegative = 3e-4
    """Weight decay of the weights."""
    alpha_learning_rate: _Positive = 3e-3
    """Learning rate of the architecture; DARTS has 3e-4 for its 19,500 steps on CIFAR-10."""
    alpha_weight_decay: _NonNegative = 1e-3
    """Weight decay of the architecture."""
    augmentation: AugmentationName = "affine"
    """Augmentation of training images: none, affine, crop-flip or randaugment."""
    dtype: _Dtype = "float32"
    """What the network computes in: float32 or bfloat16."""
    remat: _Switch = True
    """Compute activations twice instead of keeping them: a tenth of the memory at about the same speed on CPUs."""


@_checked
class DnasSettings(RunSettings):
    """Settings of `hadas dnas search`; half of the training images is for the weights, half for the architecture."""

    KIND: ClassVar[str] = "dnas-search"

    data: DataSettings = DataSettings()
    hardware: str = "generic"
    """What the network is for: generic or pipeline, the accelerators of E2E-Perf, or a device (hadas devices list)."""
    accelerator: AcceleratorSettings = AcceleratorSettings()
    operating: OperatingSettings = OperatingSettings()
    search_clocks: _Switch = False
    """Choose the device's clocks together with the architecture, instead of the highest."""
    loss: HardwareLossSettings = HardwareLossSettings()
    channels: Annotated[int, Field(strict=True, ge=2)] = 16
    """Channels of the search network's first cell, and of the network that is priced."""
    cells: Annotated[int, Field(strict=True, ge=3)] = 8  # normal cells besides the two reduce cells
    """Cells of both; those at a third and two thirds of the way are reduce cells."""
    priced: Literal["data", "e2e-perf"] = "data"
    """Network that costs are of: data, one of this size for these images, or e2e-perf, the one of E2E-Perf's published
    figures: 16 channels, 8 cells, CIFAR-10."""
    training: BilevelSettings = BilevelSettings()
    seed: _Natural = 0
    """Random seed."""

    def __post_init__(self) -> None:
        if not self.is_accelerator:
            return
        if self.loss.minimise != "latency":
            raise ValueError(
                f"minimise: expected latency for a {self.hardware} accelerator, got {self.loss.minimise!r}"
            )
        given = {
            "max_latency_ms": self.loss.max_latency_ms,
            "max_energy_mj": self.loss.max_energy_mj,
            "power_mode": self.operating.power_mode,
            "number_format": self.operating.number_format,
            "search_clocks": self.search_clocks or None,
        }
        for name, value in given.items():
            if value is not None:
                raise ValueError(
                    f"{name}: expected with a device as `hardware`, got it with {self.hardware}; budgets of "
                    "accelerators are `min_fps`"
                )

    @property
    def is_accelerator(self) -> bool:
        """Whether the hardware is an accelerator of E2E-Perf."""
        return self.hardware in ("generic", "pipeline")


@_checked
class DartsTrainingSettings:
    """How the network of a genotype is trained."""

    epochs: _Count = 60
    """Epochs of training; DARTS has 600 for CIFAR."""
    batch: _Count = 96
    """Images per training step."""
    learning_rate: _Positive = 0.025
    """Learning rate at the start; it falls to 0 along a cosine."""
    weight_decay: _NonNegative = 3e-4
    """Weight decay of all weights."""
    auxiliary_weight: _NonNegative = 0.4
    """Weight of the loss of an auxiliary head after the second reduce cell, in training alone; 0: no such head."""
    drop_path: _Rate = 0.2
    """Share of edges that are dropped at the end, rising from 0; DARTS has 0.3 for CIFAR and 0 for ImageNet."""
    cutout: _Natural | None = None
    """Side in pixels of the square that is cut out of training images; by default half the image's, 0: none."""
    augmentation: AugmentationName = "affine"
    """Augmentation of training images, before cutout: none, affine, crop-flip (photos) or randaugment."""
    label_smoothing: _Rate = 0.0
    """Label smoothing of the targets; DARTS has 0.1 for ImageNet."""
    dtype: _Dtype = "float32"
    """What the network computes in: float32 or bfloat16; weights, statistics and losses are float32."""
    remat: _Switch = False
    """Compute each cell twice instead of keeping its activations, for large networks and batches."""
    data_parallel: _Switch = False
    """Split every training batch over all devices; the processes of `coordinator` do so anyway."""


@_checked
class RetrainSettings(RunSettings):
    """Settings of `hadas dnas retrain`, the training of a genotype's network from scratch."""

    KIND: ClassVar[str] = "dnas-retrain"

    data: DataSettings = DataSettings()
    genotype: str = "DARTS_V2"
    """DARTS_V1, DARTS_V2, OURS_ACC or OURS_PIP; a code of 28 digits; the text Genotype(...); or a file with one of
    them, such as genotype.json of hadas dnas search."""
    style: Literal["cifar", "imagenet"] = "cifar"
    """Stem: cifar, one convolution, or imagenet, three of stride 2."""
    channels: Annotated[int, Field(strict=True, ge=2)] = 16
    """Channels of the first cell, an even number; DARTS has 36 for CIFAR and 48 for ImageNet."""
    cells: _Count = 8
    """Those at a third and two thirds of the way are reduce cells; DARTS has 20 for CIFAR and 14 for ImageNet."""
    training: DartsTrainingSettings = DartsTrainingSettings()
    stats_batches: _Count = 10
    """Training batches that batch-norm statistics are estimated on at the end."""
    eval_batch: _Count | None = None
    """Images at once when the network is evaluated; by default 128 of 32x32 pixels, or as many pixels."""
    seed: _Natural = 0
    """Random seed."""


@_checked
class FineTuneSettings(RunSettings):
    """Settings of `hadas fine-tune`: a selected network is trained further, its exits and classifier together."""

    KIND: ClassVar[str] = "fine-tune"

    network: str = ""
    """Directory of hadas materialise, an ARCH.json, or a work directory with one."""
    dataset: str | None = None
    """Where the images of the search are now, if they were moved; as `dataset` of hadas search."""
    data_dir: str | None = None
    """Likewise, as `data_dir` of hadas search."""
    epochs: _Count = 20
    """Epochs of training."""
    batch: _Count = 64
    """Images per training step."""
    learning_rate: _Positive = 0.01
    """Learning rate at the start; it falls to 0 along a cosine."""
    weight_decay: _NonNegative = 1e-5
    """Weight decay of kernels."""
    exit_weights: tuple[_NonNegative, ...] = ()
    """Weights of the losses of the exits, beside 1 of the classifier's; by default 0.5 each."""
    label_smoothing: _Rate = 0.0
    """Label smoothing of the classifier's targets."""
    augmentation: AugmentationName = "affine"
    """Augmentation of training images: none, affine, crop-flip (photos) or randaugment."""
    data_parallel: _Switch = False
    """Split every training batch over all devices; the processes of `coordinator` do so anyway."""
    seed: _Natural = 0
    """Random seed; the data set is split as in the search."""


def expand_home(text: str) -> str:
    """Returns a path, data set or flag with the home folder for `~`, which shells put in at a word's start alone.

    Args:
        text: `~/images`, `npz:~/data.npz`, `--checkpoint=~/supernet`; anything else is returned as it is.
    """
    found = _HOME.fullmatch(text)
    return text if found is None else found["before"] + os.path.expanduser(found["path"])


def _from_file(value: object) -> Any:
    """Returns a value of a file as settings have it: tuples for lists, and the home folder for `~`."""
    if isinstance(value, list):
        return tuple(_from_file(each) for each in value)
    return expand_home(value) if isinstance(value, str) else value


def _absolute(name: str, value: Any) -> Any:
    """Returns a setting with absolute paths, where it is one or has some."""
    if isinstance(value, tuple):
        return tuple(_absolute(name, each) for each in value)
    if not isinstance(value, str) or not value:
        return value
    kind, colon, path = value.partition(":")
    if name == "dataset" and colon and kind in _OF_FILES:
        return f"{kind}:{_absolute_path(path)}"
    if name in _PATHS or (name in _NAMES_OR_PATHS and Path(value).expanduser().is_file()):
        return _absolute_path(value)
    return value


def _absolute_path(path: str) -> str:
    return str(Path(path).expanduser().absolute())
