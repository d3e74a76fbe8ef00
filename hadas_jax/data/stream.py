"""Training images that do not fit into memory, read by Grain while the network learns.

Shapes: N images, B in a batch, S height and width, C channels.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from hadas_jax.data.arrays import LabelledImages, labelled
from hadas_jax.data.images import THREADS, Source, fit, random_fit, read_images

_AHEAD = 16  # batches that are read ahead


@dataclass(frozen=True, eq=False)
class Stream:
    """Images that are read, cropped and resized when they are needed; every epoch in another order.

    Attributes:
        source: Of the images and their labels.
        rows: int[N], which of the source's images are trained on.
        image_size: S.
        seed: Of orders, samples and augmentation.
        name: Of the data set, for errors.
        mean: By which images are standardised, one number for each channel, in 0 .. 1.
        deviation: Likewise.
    """

    source: Source = field(repr=False)
    rows: np.ndarray = field(repr=False)
    image_size: int
    seed: int
    name: str
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    @property
    def count(self) -> int:
        """N."""
        return len(self.rows)

    def batches(
        self, start_step: int, batch: int, *, augment: bool = False, retry: int = 0
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Returns batches without end: images uint8[B, S, S, C] and labels int32[B].

        A batch depends on the seed, its number, B and `retry` alone, so that training may go on at any step. Images are
        not standardised: `hadas_jax.data.standardise` does so on the device.

        Args:
            start_step: Number of the first batch.
            batch: B; the last batch of an epoch is filled from the next one.
            augment: Whether images are random crops, mirrored one time in two, instead of their middle.
            retry: Another number gives other orders and crops.

        Raises:
            ImageError: An image cannot be read, as soon as its batch is asked for.
        """
        import grain  # slow to import, and most runs do not need it

        size = self.image_size
        order = grain.MapDataset.source(_Rows(self.source, self.rows)).seed(self._order_seed(retry)).shuffle().repeat()
        if augment:
            sized = order.random_map(lambda item, rng: (random_fit(item[0], size, rng), np.int32(item[1])))
        else:
            sized = order.map(lambda item: (fit(item[0], size), np.int32(item[1])))
        steps = sized.batch(batch, drop_remainder=True).slice(slice(start_step, None))
        options = grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=_AHEAD)
        return iter(steps.to_iter_dataset(options))

    def _order_seed(self, retry: int) -> int:
        seed = self.seed % 2**32
        return seed if retry == 0 else int(np.random.SeedSequence([seed, retry]).generate_state(1)[0])

    def sample(self, count: int) -> LabelledImages:
        """Returns different training images in memory, not augmented, always the same for a seed.

        Args:
            count: How many.

        Raises:
            ValueError: More than there are, or images that cannot be read.
        """
        if not 0 < count <= self.count:
            raise ValueError(f"{self.name}: sample: expected 1 to {self.count} images, got {count}")
        images, labels = sample_images(
            self.source, self.rows, count, seed=self.seed, size=self.image_size, name=self.name
        )
        return labelled(images, labels, (self.mean, self.deviation))


@dataclass(frozen=True, eq=False)
class _Rows:
    """Some images of a source, in the form that Grain reads."""

    source: Source
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> tuple[np.ndarray, int]:
        return self.source[int(self.rows[place])]


def sample_images(
    source: Source, rows: np.ndarray, count: int, *, seed: int, size: int, name: str
) -> tuple[np.ndarray, np.ndarray]:
    """Returns images uint8[count, S, S, C] and labels int32[count] of different rows, drawn by the seed.

    Args:
        source: Of the images.
        rows: int[N], which may be drawn.
        count: How many, at most N.
        seed: Of the draw.
        size: S.
        name: Of the data set, for errors.

    Raises:
        ValueError: Images cannot be read.
    """
    chosen = np.random.default_rng(seed).permutation(rows)[:count]
    return read_images(source, chosen, size=size, name=name)
