"""Small image sets in tensorflow-datasets' own prepared form, written without TensorFlow and without a network."""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

GRID = 4  # a class is a grid of so many colours a side


def class_image(label: int, rng: np.random.Generator, *, height: int, width: int, channels: int) -> np.ndarray:
    """Returns uint8[height, width, channels]: the colours of the class, with noise that leaves it easy to tell."""
    colours = np.random.default_rng(label + 1).uniform(40, 215, (GRID, GRID, channels))
    rows, columns = np.arange(height) * GRID // height, np.arange(width) * GRID // width
    pixels = colours[rows][:, columns] + rng.normal(0, 12, (height, width, channels))
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def write_fake_set(
    data_dir: Path,
    name: str = "cifar100",
    *,
    counts: dict[str, int] | None = None,
    classes: int | None = None,
    size: int = 32,
    unlabelled: tuple[str, ...] = (),
    seed: int = 0,
) -> Path:
    """Writes a set that `load_dataset(name, data_dir=data_dir)` reads, and returns its folder.

    Labels go round the classes, so that every class has its share.

    Args:
      data_dir: where to; the set gets folders of its own name and version in it.
      name: of a set of images with one label each, as tensorflow-datasets writes it.
      counts: images of each split; 1,000 for training and 200 for test where None.
      classes: how many of the set's classes have images; all where None.
      size: height of the images where the set leaves it open; then widths differ a little.
      unlabelled: splits whose labels are all -1.
      seed: of the noise.
    """
    builder = tfds.builder(name, data_dir=str(data_dir), file_format="array_record")
    features = builder.info.features
    image_key, label_key = builder.info.supervised_keys
    height, width, channels = features[image_key].shape
    used = classes or features[label_key].num_classes

    def examples(split: str, count: int) -> Iterator[tuple[str, dict[str, Any]]]:
        rng = np.random.default_rng([seed, len(split)])
        for number in range(count):
            label = number % used
            shape = {"height": height or size, "width": width or size + number % 5}
            pixels = class_image(label, rng, **shape, channels=channels)
            others = {key: "" for key in features if key not in (image_key, label_key)}
            others |= {key: 0 for key in others if isinstance(features[key], tfds.features.ClassLabel)}
            labels = {label_key: -1 if split in unlabelled else label}
            yield f"{split}{number}", {image_key: io.BytesIO(as_png(pixels))} | labels | others

    sizes = counts or {"train": 1000, "test": 200}
    builder._split_generators = lambda *_: {split: examples(split, count) for split, count in sizes.items()}
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
    return Path(builder.data_dir)


def as_png(pixels: np.ndarray) -> bytes:
    """Returns uint8[H, W, C] as a file's bytes."""
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(file, "png")
    return file.getvalue()
