"""Settings of the data that a run is about, which every run has, and the data itself."""

from dataclasses import dataclass
from typing import ClassVar

from hadas_jax.data.catalogue import load_dataset
from hadas_jax.data.record import SplitRecord
from hadas_jax.data.splits import Splits
from hadas_jax.runs.settings import StoredSettings, check_fields, check_number

_HIGHEST_SEED = 2**32 - 3  # of scikit-learn's divisions, which take the next two as well


@dataclass(frozen=True)
class DataSettings(StoredSettings):
    """Settings of the data."""

    dataset: str = "digits"
    """digits, npz:FILE, folder:DIR, or one that tensorflow-datasets prepared: cifar10, cifar100, fashion_mnist, mnist,
    imagenet2012, tfds:NAME."""
    data_dir: str | None = None
    """Where the prepared copy of a tensorflow-datasets set is."""
    image_size: int | None = None
    """Height and width that images are brought to when they are read; by default their own."""
    split_seed: int | None = None
    """Random seed of the division into training, validation, calibration and test images; by default 0. What was made
    of images keeps their division, so beside --checkpoint it is refused."""
    skip_unreadable: bool = False
    """Leave out images that cannot be read, instead of stopping at them."""

    PATHS: ClassVar[tuple[str, ...]] = ("data_dir",)

    def __post_init__(self) -> None:
        """Raises `ValueError` where a setting does not fit, by its flag."""
        check_fields(self, ("dataset",), str, "text")
        check_fields(self, ("data_dir",), str, "text", optional=True)
        check_fields(self, ("skip_unreadable",), bool, "true or false")
        if self.image_size is not None:
            check_number("image_size", self.image_size, int, lowest=1)
        if self.split_seed is not None:
            check_number("split_seed", self.split_seed, int, lowest=0, highest=_HIGHEST_SEED)


def load_splits(
    settings: DataSettings, *, seed: int, record: SplitRecord | None = None, evaluation_images: int | None = None
) -> Splits:
    """Loads the data of a run, divided as a record says where there is one.

    Args:
        settings: Of the data.
        seed: Of the order of streams.
        record: Of the data that something was made of; the seed of its division is taken.
        evaluation_images: The most of validation, calibration and test.

    Raises:
        ValueError: As `load_dataset`.
    """
    return load_dataset(
        settings.dataset,
        seed=(settings.split_seed or 0) if record is None else record.seed,
        stream_seed=seed,
        data_dir=settings.data_dir,
        image_size=settings.image_size,
        evaluation_images=evaluation_images,
        skip_unreadable=settings.skip_unreadable,
    )


def require_same(splits: Splits, record: SplitRecord, *, dataset: str, owner: str, hint: str) -> None:
    """Refuses data other than those that something was made of.

    Args:
        splits: The data at hand, and their division.
        record: Of the data that it was made of.
        dataset: Name of the data at hand.
        owner: What was made of them.
        hint: What to do.

    Raises:
        ValueError: One line: what differs.
    """
    mismatch = record.mismatch(splits.record)
    if mismatch is not None:
        raise ValueError(f"data set {dataset}: expected the images that {owner} was made of, got {mismatch}; {hint}")
