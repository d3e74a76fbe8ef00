"""Settings of fine-tuning a network: what the command line, a config file and a notebook share."""

from dataclasses import dataclass
from typing import ClassVar

from tyro.conf import Positional

from hadas_jax.methods.checks import check_choice, check_fields, check_number
from hadas_jax.methods.stored_settings import StoredSettings
from hadas_jax.training import AUGMENTATIONS


@dataclass(frozen=True)
class FineTuneSettings(StoredSettings):
    """Settings of training a selected network further, its exits and classifier together."""

    PATHS: ClassVar[tuple[str, ...]] = ("network", "data_dir")

    network: Positional[str] = ""
    """Directory of hadas materialise, an ARCH.json, or a work directory with one."""
    dataset: str | None = None
    """Where the images of the search are now, if they were moved; as --dataset of hadas search."""
    data_dir: str | None = None
    """Likewise, as --data-dir of hadas search."""
    epochs: int = 20
    """Epochs of training."""
    batch: int = 64
    """Images per training step."""
    learning_rate: float = 0.01
    """At the start; it falls to 0 along a cosine."""
    weight_decay: float = 1e-5
    """Of kernels."""
    exit_weights: tuple[float, ...] = ()
    """Of the loss of each exit, beside 1 of the classifier's; by default 0.5 each."""
    label_smoothing: float = 0.0
    """Of the classifier's targets."""
    augmentation: str = "affine"
    """Of training images: none, affine, crop-flip (photos) or randaugment."""
    seed: int = 0
    """Of everything random; the data set is split as in the search."""

    def __post_init__(self) -> None:
        check_fields(self, ("network",), str, "text")
        check_fields(self, ("dataset", "data_dir"), str, "text", optional=True)
        for name in ("epochs", "batch"):
            check_number(name, getattr(self, name), int, lowest=1)
        check_number("seed", self.seed, int, lowest=0)
        check_number("learning_rate", self.learning_rate, float, above=0)
        check_number("weight_decay", self.weight_decay, float, lowest=0)
        check_number("label_smoothing", self.label_smoothing, float, lowest=0, below=1)
        for weight in self.exit_weights:
            check_number("exit_weights", weight, float, lowest=0)
        check_choice(self, "augmentation", AUGMENTATIONS)
