"""Where a selected network comes from: the data and the supernet of its search."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from hadas_jax.data import LabelledImages, Splits
from hadas_jax.deploy.architecture import Architecture, Normalisation, architecture_file, read_architecture
from hadas_jax.deploy.materialise import materialise
from hadas_jax.deploy.static_network import StaticNetwork, holds_network, load_network
from hadas_jax.deploy.weights import place_from, supernet_directory
from hadas_jax.methods.data_settings import load_splits, require_same
from hadas_jax.methods.settings import Settings
from hadas_jax.methods.training_inputs import standardised_by
from hadas_jax.methods.training_run import TrainingRun
from hadas_jax.supernet import BatchStats, Parameters, apply, estimate_batch_stats, resize

_BATCH = 128


def data_of(architecture: Architecture, *, dataset: str | None = None, data_dir: str | None = None) -> Splits:
    """Returns the data that a network was searched on, divided as then, and standardised as the network takes it.

    Args:
      architecture: the network.
      dataset: where the images are now; None: where they were.
      data_dir: likewise.

    Raises:
      ValueError: the data set is not there any more, or another one.
    """
    splits, space = _loaded(architecture, _settings(architecture, dataset, data_dir)), architecture.space
    if splits.channels != space.in_channels or splits.classes > space.classes:
        raise ValueError(
            f"--dataset {splits.name}: expected images of {space.in_channels} channels in at most {space.classes} "
            f"classes as the network takes, got {splits.channels} channels and {splits.classes} classes"
        )
    by = architecture.normalisation
    return splits if by is None else standardised_by(splits, by.mean, by.deviation)


def moved(architecture: Architecture, *, dataset: str | None, data_dir: str | None) -> Architecture:
    """Returns a network that says where its images are now, if they were moved."""
    settings = json.loads(json.dumps(vars(_settings(architecture, dataset, data_dir))))
    return architecture.model_copy(update={"origin": architecture.origin.model_copy(update={"settings": settings})})


def _settings(architecture: Architecture, dataset: str | None, data_dir: str | None) -> Settings:
    """The settings of the search, its data where they are now."""
    settings = Settings.from_mapping(architecture.origin.settings, source="origin.settings")
    return dataclasses.replace(
        settings, dataset=dataset or settings.dataset, data_dir=data_dir or settings.data_dir
    ).absolute()


def _loaded(architecture: Architecture, settings: Settings) -> Splits:
    """The images of the search, and no others."""
    if architecture.data is None:
        raise ValueError(
            f"the network of {architecture.origin.workdir}: expected one that says on which images it was found, got "
            "one of an earlier version, which does not; search and select it anew"
        )
    splits = load_splits(
        settings, seed=settings.seed, record=architecture.data, evaluation_images=settings.evaluation_images
    )
    hint = "--dataset names the place of the images of the search"
    require_same(splits, architecture.data, dataset=settings.dataset, owner="the network", hint=hint)
    return splits


class Sources:
    """A selected network beside its supernet.

    Args:
      architecture: the network.
      file: its ARCH.json.
      dataset: where the images are now; None: where they were.
      data_dir: likewise.

    Attributes:
      run: the data, and the supernet as `loaded`.

    Raises:
      ValueError: the data set or the supernet is not there any more, or they are others.
    """

    def __init__(
        self,
        architecture: Architecture,
        file: Path | str,
        *,
        dataset: str | None = None,
        data_dir: str | None = None,
    ) -> None:
        self._directory = supernet_directory(architecture, file)
        settings = _settings(architecture, dataset, data_dir)
        # The supernet has its space, whose file need not be there any more, and the division of its images.
        supernet = dataclasses.replace(settings, checkpoint=str(self._directory), space=None, split_seed=None)
        self.run = TrainingRun(supernet, fine_tune=False, splits=_loaded(architecture, settings))
        self._architecture = moved(architecture, dataset=dataset, data_dir=data_dir)
        self._backbone = architecture.decoded
        self._resolution = int(self._backbone.resolution)
        self._space = dataclasses.replace(self.run.space, resolution=(self._resolution,))
        self._stats = self._estimated()

    @property
    def _params(self) -> Parameters:
        return self.run.initial_parameters()

    def _estimated(self) -> BatchStats:
        """Batch-norm statistics as the search estimated them when it judged the backbone."""
        return estimate_batch_stats(
            self._space,
            self._params,
            self._backbone,
            self.run.calibration_batches(),
            skip="blocks",
            resolution=self._resolution,
            dtype=self.run.settings.dtype,
        )

    def network(self, folder: Path) -> StaticNetwork:
        """Cuts the network out.

        Args:
          folder: that it will be written to.
        """
        splits, given = self.run.splits, self._architecture
        normalisation = Normalisation(mean=splits.mean, deviation=splits.deviation)
        supernet = place_from(folder, self._directory)
        architecture = given.model_copy(update={"normalisation": normalisation, "supernet": supernet})
        segments, weights = materialise(
            self._space,
            self._params,
            self._stats,
            backbone=self._backbone,
            exits=given.exits,
            image_size=splits.image_size,
        )
        return StaticNetwork(architecture, segments, weights, splits.image_size)

    def masked_logits(self, data: LabelledImages) -> tuple[np.ndarray, np.ndarray]:
        """Returns what the supernet with masks predicts at the network's exits.

        Returns:
          Logits float32[e + 1, N, K], the classifier last, and confidence logits float32[e, N].
        """
        params, stats, backbone = self._params, self._stats, self._backbone

        @jax.jit
        def some(images: jax.Array, params: Parameters, stats: BatchStats) -> tuple[jax.Array, jax.Array]:
            found = apply(self._space, params, stats, backbone, resize(images, self._resolution))
            return found.exits, found.confidence

        parts = []
        for start in range(0, data.count, _BATCH):
            images, _ = data.take(jnp.arange(start, min(start + _BATCH, data.count)))
            padded = jnp.pad(images, ((0, _BATCH - len(images)), (0, 0), (0, 0), (0, 0)))
            logits, confidence = some(padded, params, stats)
            parts.append((np.asarray(logits)[:, : len(images)], np.asarray(confidence)[:, : len(images)]))
        mask = self._architecture.exit_mask
        logits, confidence = (np.concatenate(each, axis=1) for each in zip(*parts, strict=True))
        return logits[np.append(mask, True)], confidence[mask]


def network_at(place: Path | str, *, dataset: str | None = None, data_dir: str | None = None) -> StaticNetwork:
    """Reads a materialised network, or cuts out the one of an ARCH.json or of a work directory with one.

    Args:
      place: of the network.
      dataset: where the images of its search are now; None: where they were.
      data_dir: likewise.

    Raises:
      ValueError: there is neither, or it does not fit.
    """
    if holds_network(place):
        return load_network(place)
    sources = Sources(read_architecture(place), architecture_file(place), dataset=dataset, data_dir=data_dir)
    return sources.network(Path(place))
