"""Settings of data, supernet and training, which every run has."""

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from hadas_jax.data.settings import DataSettings
from hadas_jax.runs.settings import check_choice, check_fields, check_number, check_numbers
from hadas_jax.training.augmentation import AUGMENTATIONS
from hadas_jax.training.supernet import DISTILLATIONS, DTYPES, SAMPLINGS, SandwichOptions


@dataclass(frozen=True)
class TrainingSettings(DataSettings):
    """Settings of data, supernet and training."""

    PATHS: ClassVar[tuple[str, ...]] = (*DataSettings.PATHS, "checkpoint")
    NAMES_OR_PATHS: ClassVar[tuple[str, ...]] = ("space",)

    evaluation_images: int | None = None
    """Most images of validation, calibration and test each, chosen of these parts; by default all, of streams 10,000
    for the test."""
    space: str | None = None
    """The space of backbones by name, or the path of a space file; by default the one of --checkpoint, or digits for
    images below 20 pixels and small-images for others."""
    resolutions: tuple[int, ...] = ()
    """Resolutions to use of those that the space has; by default all."""
    checkpoint: str | None = None
    """Directory of a trained supernet, from hadas train, which trains on, or hadas import-checkpoint; a search takes it
    as it is and trains at most its exits."""
    epochs: int = 28
    """Epochs of supernet training; with 0, hadas train keeps the supernet of --checkpoint and trains exits alone."""
    exit_epochs: int = 16
    """Epochs of exit training."""
    batch: int = 64
    """Images per training step."""
    learning_rate: float = 0.1
    """Peak learning rate of the supernet."""
    exit_learning_rate: float = 0.05
    """Peak learning rate of the exit heads."""
    weight_decay: float = 1e-5
    """Of all weights but biases and batch norm's."""
    sampled: int = 2
    """Random sub-networks per step, besides the largest and the smallest."""
    sampling: str = "uniform"
    """How they are drawn: uniform, or bestup: the best of a few near a random size."""
    distillation: str = "kl"
    """What smaller networks learn from the largest by: kl, or alpha, AlphaNet's divergence."""
    label_smoothing: float = 0.1
    """Of the largest network's targets."""
    dropout: float = 0.0
    """Rate before the classifier, of the largest network alone."""
    drop_connect: float = 0.0
    """Rate of whole blocks, rising with depth, of the largest network alone."""
    augmentation: str = "affine"
    """Of training images: none, affine, crop-flip or randaugment."""
    dtype: str = "float32"
    """What networks compute in: float32 or bfloat16; weights, statistics and losses are float32."""
    remat: bool = False
    """Compute activations twice instead of keeping them: a third of the memory, on CPUs also quicker."""
    cut: bool = False
    """Compute the kernel taps and channels alone that a network uses: quicker steps, twice the compilation; with
    --remat."""
    data_parallel: bool = False
    """Split every training batch over the devices of this machine."""
    stats_batches: int = 4
    """Training batches that a backbone's batch-norm statistics are estimated on."""
    eval_batch: int | None = None
    """Images at once when networks are judged; by default 128 of 32x32 pixels on a CPU, 512 elsewhere, or as many
    pixels."""
    group: int | None = None
    """Backbones that are judged side by side; by default one on a CPU, 16 elsewhere."""
    seed: int = 0
    """Of everything random."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("exit_epochs", "batch", "stats_batches"):
            check_number(name, getattr(self, name), int, lowest=1)
        for name in ("evaluation_images", "eval_batch", "group"):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), int, lowest=1)
        for name in ("seed", "sampled"):
            check_number(name, getattr(self, name), int, lowest=0)
        for name in ("learning_rate", "exit_learning_rate"):
            check_number(name, getattr(self, name), float, above=0)
        check_number("weight_decay", self.weight_decay, float, lowest=0)
        for name in ("label_smoothing", "dropout", "drop_connect"):
            check_number(name, getattr(self, name), float, lowest=0, below=1)
        check_fields(self, ("space", "checkpoint"), str, "text", optional=True)
        check_fields(self, ("remat", "cut", "data_parallel"), bool, "true or false")
        check_number("epochs", self.epochs, int, lowest=1 if self.checkpoint is None else 0)
        if self.checkpoint is not None and self.split_seed is not None:
            raise ValueError(
                "--split-seed and --checkpoint: expected one of them, got both; the division of the images that a "
                "checkpoint was made of stays with it"
            )
        if self.cut and not self.remat:
            raise ValueError("--cut: expected with --remat, which keeps its memory in bounds, got it alone")
        check_numbers(self, "resolutions", int, "pixels")
        for name, choices in (
            ("sampling", SAMPLINGS),
            ("distillation", tuple(DISTILLATIONS)),
            ("augmentation", AUGMENTATIONS),
            ("dtype", DTYPES),
        ):
            check_choice(self, name, choices)

    @property
    def sandwich(self) -> dict[str, Any]:
        """What `SandwichOptions` takes of the settings."""
        known = [each.name for each in dataclasses.fields(SandwichOptions)]
        return {name: getattr(self, name) for name in known if hasattr(self, name)}


@dataclass(frozen=True)
class TrainSettings(TrainingSettings):
    """Settings of a training run."""

    exits_for: str | None = None
    """Train the exits of this backbone alone: largest, smallest, or a0 to a6; as the HADAS paper does with
    --exit-epochs 30 --batch 64 --exit-learning-rate 0.01."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fields(self, ("exits_for",), str, "text", optional=True)
