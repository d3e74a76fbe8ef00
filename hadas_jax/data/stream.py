"""Training images that do not fit into memory, read by Grain while the network learns.

Shapes: N images, B in a batch, S height and width, C channels.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from hadas_jax.data.arrays import LabelledImages
from hadas_jax.data.images import THREADS, Source, fit, random_fit

_AHEAD = 16  # batches that are read ahead


@dataclass(frozen=True, eq=False)
class Stream:
    """Images that are read, cropped and resized when they are needed; every epoch in another order.

    Attributes:
        source: The images that are trained on, and their labels.
        image_size: S.
        seed: Random seed of orders, samples and augmentation.
        name: Name of the data set, for errors.
        mean: float[C], by which images are standardised, in 0 .. 1.
        std: Standard deviation, likewise.
    """

    source: Source = field(repr=False)
    image_size: int
    seed: int
    name: str
    mean: ArrayLike = 0.0
    std: ArrayLike = 1.0

    @property
    def count(self) -> int:
        """N."""
        return len(self.source)

    def batches(
        self, start_step: int, batch: int, *, augment: bool = False, retry: int = 0, part: int = 0, parts: int = 1
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Returns batches without end: images uint8[B, S, S, C] and labels int32[B], or a part of each.

        A batch depends on the seed, its number, B and `retry` alone, so that training may go on at any step. Images are
        not standardised: `hadas_jax.data.standardise` does so on the device.

        Args:
            start_step: Number of the first batch.
            batch: B; the last batch of an epoch is filled from the next one.
            augment: Whether images are random crops, mirrored one time in two, instead of their middle.
            retry: Another number gives other orders and crops.
            part: Number of the part that is read, of `parts` parts of every batch; the others are left to other
                processes.
            parts: Parts of a batch, all of one size; the batches of all parts are those of one.

        Raises:
            ImageError: An image cannot be read, as soon as its batch is asked for.
        """
        import grain  # slow to import, and most runs do not need it

        size = self.image_size
        seed = self.seed % 2**32
        if retry:
            seed = int(np.random.SeedSequence([seed, retry]).generate_state(1)[0])
        order = grain.MapDataset.source(self.source).seed(seed).shuffle().repeat()
        if augment:
            sized = order.random_map(lambda item, rng: (random_fit(item[0], size, rng), np.int32(item[1])))
        else:
            sized = order.map(lambda item: (fit(item[0], size), np.int32(item[1])))
        steps = sized.batch(batch // parts, drop_remainder=True).slice(slice(parts * start_step + part, None, parts))
        options = grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=_AHEAD)
        return iter(steps.to_iter_dataset(options))

    def sample(self, count: int) -> LabelledImages:
        """Returns different training images in memory, not augmented, always the same for a seed.

        Args:
            count: Number of images.

        Raises:
            ValueError: More than there are, or images that cannot be read.
        """
        if not 0 < count <= self.count:
            raise ValueError(f"{self.name}: sample: expected 1 to {self.count} images, got {count}")
        images, labels = self.sample_stored(count, seed=self.seed)
        return LabelledImages(jnp.asarray(images), jnp.asarray(labels), self.mean, self.std)

    def sample_stored(self, count: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns at most so many different images uint8[count, S, S, C], drawn by a seed, and labels int32[count].

        Raises:
            ValueError: Images cannot be read.
        """
        rows = np.random.default_rng(seed).permutation(self.count)[:count]
        return self.source.read_images(rows, size=self.image_size, name=self.name)
