"""Settings of retraining: what the command line, a config file and a notebook share."""

from dataclasses import dataclass
from typing import ClassVar

from hadas_jax.methods.checks import check_choice, check_fields, check_number
from hadas_jax.methods.data_settings import DataSettings
from hadas_jax.training import AUGMENTATIONS, DTYPES

STYLES = ("cifar", "imagenet")


@dataclass(frozen=True)
class RetrainSettings(DataSettings):
    """Settings of the training of a genotype's network from scratch."""

    NAMES_OR_PATHS: ClassVar[tuple[str, ...]] = ("genotype",)

    genotype: str = "DARTS_V2"
    """DARTS_V1, DARTS_V2, OURS_ACC or OURS_PIP; a code of 28 digits; the text Genotype(...); or a file with one of
    them, such as genotype.json of hadas dnas search."""
    evaluation_images: int | None = None
    """Most images of validation, calibration and test each, chosen of these parts; by default all, of streams 10,000
    for the test."""
    style: str = "cifar"
    """Stem: cifar, one convolution, or imagenet, three of stride 2."""
    channels: int = 16
    """Of the first cell; DARTS has 36 for CIFAR and 48 for ImageNet."""
    cells: int = 8
    """Those at a third and two thirds of the way are reduce cells; DARTS has 20 for CIFAR and 14 for ImageNet."""
    epochs: int = 60
    """Epochs of training; DARTS has 600 for CIFAR."""
    batch: int = 96
    """Images per training step."""
    learning_rate: float = 0.025
    """At the start; it falls to 0 along a cosine."""
    weight_decay: float = 3e-4
    """Of all weights."""
    auxiliary_weight: float = 0.4
    """Of the loss of an auxiliary head after the second reduce cell, in training alone; 0: no such head."""
    drop_path: float = 0.2
    """Share of edges that are dropped at the end, rising from 0; DARTS has 0.3 for CIFAR and 0 for ImageNet."""
    cutout: int | None = None
    """Side in pixels of the square that is cut out of training images; by default half the image's, 0: none."""
    augmentation: str = "affine"
    """Of training images, before cutout: none, affine, crop-flip (photos) or randaugment."""
    label_smoothing: float = 0.0
    """Of the targets; DARTS has 0.1 for ImageNet."""
    dtype: str = "float32"
    """What the network computes in: float32 or bfloat16; weights, statistics and losses are float32."""
    remat: bool = False
    """Compute each cell twice instead of keeping its activations, for large networks and batches."""
    stats_batches: int = 10
    """Training batches that batch-norm statistics are estimated on at the end."""
    eval_batch: int | None = None
    """Images at once when the network is judged; by default 128 of 32x32 pixels, or as many pixels."""
    seed: int = 0
    """Of everything random."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("cells", "epochs", "batch", "stats_batches"):
            check_number(name, getattr(self, name), int, lowest=1)
        check_number("channels", self.channels, int, lowest=2)
        if self.channels % 2:
            raise ValueError(f"--channels: expected an even number, got {self.channels}")
        for name in ("evaluation_images", "eval_batch"):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), int, lowest=1)
        if self.cutout is not None:
            check_number("cutout", self.cutout, int, lowest=0)
        check_number("seed", self.seed, int, lowest=0)
        check_number("learning_rate", self.learning_rate, float, above=0)
        for name in ("weight_decay", "auxiliary_weight"):
            check_number(name, getattr(self, name), float, lowest=0)
        for name in ("drop_path", "label_smoothing"):
            check_number(name, getattr(self, name), float, lowest=0, below=1)
        check_fields(self, ("genotype",), str, "text")
        check_fields(self, ("remat",), bool, "true or false")
        for name, choices in (("style", STYLES), ("augmentation", AUGMENTATIONS), ("dtype", DTYPES)):
            check_choice(self, name, choices)
