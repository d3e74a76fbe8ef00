"""A selected network as layers of its own size, cut out of the supernet of its search; nothing is masked.

Batch-norm statistics are the backbone's own, exit heads those that the network has (HADAS, arXiv 2212.03354).
Shapes: N images, B batch, H, W image, C channels, K classes, e exits of the network.
"""

import copy
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from hadas_jax.data import LabelledImages, Splits, load
from hadas_jax.deploy.architecture import (
    Architecture,
    Normalisation,
    SupernetReference,
    architecture_file,
    read_architecture,
)
from hadas_jax.deploy.given import GivenSegments
from hadas_jax.deploy.layers import IMAGES, Kind, Layer, Segment, Weights
from hadas_jax.deploy.static_network import StaticNetwork, holds_network, load_network
from hadas_jax.settings import ExitsSettings, SearchSettings
from hadas_jax.spaces import Backbone, GivenNetwork, MBConvSpace
from hadas_jax.supernet import BatchStats, Parameters, Tree, apply, cut, cut_space, estimate_batch_stats, resize
from hadas_jax.supernet.blocks import head_padding
from hadas_jax.supernet.fold import stored_network
from hadas_jax.supernet.layers import bicubic_weights
from hadas_jax.supernet.quantisation import UNIT, Storage
from hadas_jax.training.run import TrainingRun
from hw_models import NumberFormat

_BATCH = 128


def network_at(
    path: Path | str, *, dataset: str | None = None, data_dir: str | None = None
) -> StaticNetwork | GivenSegments:
    """Reads a materialised network, or cuts out the one of an ARCH.json or of a work directory with one.

    Args:
        path: The network.
        dataset: Where the images of its search are now; None: where they were.
        data_dir: Likewise.

    Returns:
        The network, which says where its images are now.

    Raises:
        ValueError: There is neither, or it does not fit.
    """
    if holds_network(path):
        network = load_network(path)
        return dataclasses.replace(network, architecture=_moved(network.architecture, dataset, data_dir))
    architecture = read_architecture(path)
    if isinstance(architecture.space, GivenNetwork):
        directory = architecture.supernet.directory(architecture_file(path))
        return GivenSegments.of(_moved(architecture, dataset, data_dir), directory)
    return SubNetwork(path, dataset=dataset, data_dir=data_dir).cut_out(Path(path))


def data_of(architecture: Architecture) -> Splits:
    """Returns the data that a network was searched on, divided as then, and standardised as the network takes it.

    Raises:
        ValueError: The data set is not there any more, or another one.
    """
    splits, space = _load(architecture, _settings(architecture)), architecture.space
    if splits.channels != space.in_channels or splits.classes > space.classes:
        raise ValueError(
            f"dataset {splits.name}: expected images of {space.in_channels} channels in at most {space.classes} "
            f"classes as the network takes, got {splits.channels} channels and {splits.classes} classes"
        )
    by = architecture.normalisation
    return splits if by is None else splits.standardised_by(by.mean, by.deviation)


def _settings(architecture: Architecture) -> SearchSettings | ExitsSettings:
    """The settings of the search, or of the run for a given network."""
    kind = ExitsSettings if isinstance(architecture.space, GivenNetwork) else SearchSettings
    return kind.from_mapping(architecture.origin.settings, source="origin.settings").absolute()


def _moved(architecture: Architecture, dataset: str | None, data_dir: str | None) -> Architecture:
    """The network with settings that say where its images are now, if they were moved."""
    settings = _settings(architecture)
    data = settings.data
    moved = settings.replace(dataset=dataset or data.dataset, data_dir=data_dir or data.data_dir).absolute()
    origin = architecture.origin.model_copy(update={"settings": json.loads(json.dumps(moved.flat()))})
    return architecture.model_copy(update={"origin": origin})


def _load(architecture: Architecture, settings: SearchSettings | ExitsSettings) -> Splits:
    """The images of the search, and no others."""
    if architecture.data is None:
        raise ValueError(
            f"the network of {architecture.origin.workdir}: expected one that says on which images it was found, got "
            "one of an earlier version, which does not; search and select it anew"
        )
    splits = load(settings.data, stream_seed=settings.seed, record=architecture.data)
    hint = "`dataset` names the place of the images of the search"
    architecture.data.require(splits.record, dataset=settings.data.dataset, owner="the network", hint=hint)
    return splits


class SubNetwork:
    """A selected network within its supernet.

    Args:
        path: Its ARCH.json, or a work directory with one.
        dataset: Where the images of its search are now; None: where they were.
        data_dir: Likewise.

    Attributes:
        splits: The data of the search.

    Raises:
        ValueError: There is no network, or the data set or the supernet is not there any more, or they are others.
    """

    def __init__(self, path: Path | str, *, dataset: str | None = None, data_dir: str | None = None) -> None:
        architecture = _moved(read_architecture(path), dataset, data_dir)
        settings = _settings(architecture)
        if isinstance(architecture.space, GivenNetwork) or isinstance(settings, ExitsSettings):
            raise ValueError(
                f"{path}: expected a network of a supernet, got a given one, whose weights stay in its own file; "
                "hadas export takes it as it is"
            )
        self._directory = architecture.supernet.directory(architecture_file(path))
        self.splits = _load(architecture, settings)
        # The supernet has its space, whose file need not be there any more, and the division of its images.
        supernet = settings.replace(checkpoint=str(self._directory), space=None, split_seed=None)
        run = TrainingRun(supernet, fine_tune=False, splits=self.splits)
        self._whole, self._params, self._batches = run.space, run.initial_parameters(), run.calibration_batches()
        dtype = run.settings.training.dtype
        self._dtype = dtype if architecture.number_format == NumberFormat.FP32 else "float32"
        self._choose(architecture)

    def sibling(self, architecture: Architecture) -> "SubNetwork":
        """Returns another network of the same search, within the supernet that is read already."""
        other = copy.copy(self)
        other._choose(architecture)
        return other

    def _choose(self, architecture: Architecture) -> None:
        self._architecture, self._backbone = architecture, architecture.decoded
        self._storage = Storage(architecture.number_format)
        self._space = dataclasses.replace(self._whole, resolution=(int(self._backbone.resolution),))
        # As the search estimated them when it evaluated the backbone.
        self._stats = estimate_batch_stats(
            self._space,
            self._params,
            self._backbone,
            self._batches,
            skip="blocks",
            resolution=self._space.resolution[0],
            dtype=self._dtype,
            storage=self._storage,
        )

    def cut_out(self, folder: Path) -> StaticNetwork:
        """Cuts the network out.

        Args:
            folder: The folder that it will be written to.
        """
        splits = self.splits
        mean, std = splits.normalisation
        architecture = self._architecture.model_copy(
            update={
                "normalisation": Normalisation(mean=mean, deviation=std),
                "supernet": SupernetReference.to(self._directory, folder=folder),
            }
        )
        segments, weights = materialise(
            self._space,
            self._params,
            self._stats,
            backbone=self._backbone,
            exits=architecture.exits,
            image_size=splits.image_size,
        )
        return StaticNetwork(architecture, segments, weights, splits.image_size)

    def predict(self, data: LabelledImages) -> tuple[np.ndarray, np.ndarray]:
        """Returns what the supernet with masks predicts at the network's exits.

        Returns:
            Logits float32[e + 1, N, K], the classifier last, and confidence logits float32[e, N].
        """

        @jax.jit
        def masked(images: jax.Array, params: Parameters, stats: BatchStats) -> tuple[jax.Array, jax.Array]:
            images = resize(images, self._space.resolution[0])
            outputs = apply(self._space, params, stats, self._backbone, images, storage=self._storage)
            return outputs.exits, outputs.confidence

        last, parts = data.count - 1, []
        params, stats = stored_network(self._space, self._params, self._stats, self._backbone, storage=self._storage)
        for start in range(0, data.count, _BATCH):
            images, _ = data.take(jnp.minimum(start + jnp.arange(_BATCH), last))
            parts.append(jax.tree.map(np.asarray, masked(images, params, stats)))
        mask = self._architecture.exit_mask
        logits, confidence = (np.concatenate(each, axis=1)[:, : data.count] for each in zip(*parts, strict=True))
        return logits[np.append(mask, True)], confidence[mask]


def materialise(
    space: MBConvSpace,
    params: Parameters,
    stats: BatchStats,
    *,
    backbone: Backbone,
    exits: Sequence[int],
    image_size: int,
) -> tuple[tuple[Segment, ...], Weights]:
    """Cuts a network out of its supernet.

    Args:
        space: The space of the supernet.
        params: The shared weights.
        stats: The batch-norm statistics of the backbone, from `estimate_batch_stats`; ranges of activations among them
            are kept.
        backbone: One design of the space.
        exits: The blocks that an exit follows, counted over the backbone's own blocks from 0, rising.
        image_size: Height and width of the images that the network gets; resized where the backbone has another.

    Returns:
        One segment for each exit and a last one for the classifier, and their weights.
    """
    params, stats = jax.tree.map(np.asarray, (params, stats))
    params, stats = cut(space, params, stats, backbone)
    space = cut_space(space, backbone)
    trunk, heads = _merged(params.backbone, stats.backbone), _merged(params.heads, stats.heads)
    layers, (size,), stride = _LayerList(), space.resolution, space.stem_stride
    x, stem = IMAGES, trunk["stem"]
    if image_size == size:
        layers.keep_range(x, stem.get("images"))
    else:
        rows = jnp.asarray(bicubic_weights(image_size, size), jnp.float32)
        x = layers.add("resize", "resize", x, weights={"rows": rows}, range=stem.get("images"))
    stem = {"stem": {"kernel": stem["kernel"]}, "stem_bn": stem["bn"]} | {
        f"stem_{name}": stem[name] for name in ("normed", "act") if name in stem
    }
    x = layers.add_normed("", "stem", "conv", x, stem, act="swish", stride=stride, padding=1)
    size, block = -(-size // stride), 0
    for s, stage in enumerate(space.stages):
        first_exit = max(space.first_exit - block, 0)  # the first block of the stage that has a head
        for d in range(stage.depth[0]):
            tree = trunk[f"stage{s}_first"] if d == 0 else _row(trunk[f"stage{s}_rest"], d - 1)
            stride = stage.stride if d == 0 else 1
            x, size = _add_block(layers, x, tree, name=f"block{block}", stride=stride), -(-size // stride)
            if block in exits:
                head = _row(heads[f"stage{s}"], d - first_exit)
                _add_exit(layers, x, head, name=f"exit{block}", padding=head_padding(size, size))
            block += 1
    _add_tail(layers, x, trunk["tail"])
    return tuple(layers.segments), jax.tree.map(jnp.asarray, layers.weights)


def _merged(weights: Tree, stats: Tree) -> Tree:
    """Weights with the statistics of each batch norm among its own weights."""
    if not isinstance(stats, dict):
        return stats
    return weights | {name: _merged(weights.get(name, {}), leaf) for name, leaf in stats.items()}


def _row(tree: Tree, row: int) -> Tree:
    return jax.tree.map(lambda leaf: leaf[row], tree)


class _LayerList:
    """Collects the layers and weights of a network in the order that they run in."""

    def __init__(self) -> None:
        self.segments: list[Segment] = []
        self.weights: Weights = {}
        self._layers: list[Layer] = []
        self._takes = IMAGES

    def add(
        self,
        name: str,
        kind: Kind,
        *inputs: str,
        weights: Tree = None,
        range: Tree = None,
        stride: int = 1,
        padding: int = 0,
    ) -> str:
        """Adds a layer and returns its name, for the layers that take its output; `range` is that of its output."""
        self._layers.append(Layer(name, kind, inputs, stride, padding))
        if weights is not None:
            self.weights[name] = weights
        self.keep_range(name, range)
        return name

    def keep_range(self, name: str, range: Tree) -> None:
        """Keeps the range of an activation, of which there is none where it is not stored in 8 bit."""
        if range is not None:
            self.weights[name] = {**self.weights.get(name, {}), **range}

    def add_normed(self, prefix: str, name: str, kind: Kind, x: str, weights: Tree, *, act: Kind, **sizes: int) -> str:
        """Adds a layer, its batch norm and an activation; returns the name of the last."""
        x = self.add(f"{prefix}{name}", kind, x, weights=weights[name], **sizes)
        normed, acted = weights.get(f"{name}_normed"), weights.get(f"{name}_act")
        x = self.add(f"{prefix}{name}_bn", "batch_norm", x, weights=weights[f"{name}_bn"], range=normed)
        return self.add(f"{prefix}{name}_act", act, x, range=acted)

    def end_segment(self, *, features: str | None, logits: str, confidence: str | None) -> None:
        """Ends a segment after the layers so far."""
        self.segments.append(Segment(tuple(self._layers), self._takes, features, logits, confidence))
        self._layers, self._takes = [], features or ""


def _add_block(layers: _LayerList, x: str, weights: Tree, *, name: str, stride: int) -> str:
    """Adds an inverted residual block; see `hadas_jax.supernet.blocks.MBConv`."""
    add, y = layers.add, x
    if "expand" in weights:
        y = layers.add_normed(f"{name}_", "expand", "linear", y, weights, act="swish")
    sizes = {"stride": stride, "padding": weights["depthwise"]["kernel"].shape[0] // 2}
    y = layers.add_normed(f"{name}_", "depthwise", "depthwise", y, weights, act="swish", **sizes)
    if "se" in weights:
        se = weights["se"]
        z = add(f"{name}_pooled", "mean", y, range=se.get("pooled"))
        z = add(f"{name}_squeeze", "linear", z, weights=se["squeeze"])
        z = add(f"{name}_squeeze_act", "relu", z, range=se.get("squeezed"))
        z = add(f"{name}_excite", "linear", z, weights=se["excite"], range=se.get("excited"))
        z = add(f"{name}_gate", "hard_sigmoid", z, range={"range": jnp.asarray(UNIT)} if "gated" in se else None)
        y = add(f"{name}_gated", "gate", y, z, range=se.get("gated"))
    y = add(f"{name}_project", "linear", y, weights=weights["project"])
    y = add(f"{name}_project_bn", "batch_norm", y, weights=weights["project_bn"], range=weights.get("project_normed"))
    shortcut = add(f"{name}_half", "half", x, range=weights.get("half")) if stride > 1 else x
    if "shortcut" in weights:
        normed = weights.get("shortcut_normed")
        shortcut = add(f"{name}_shortcut", "linear", shortcut, weights=weights["shortcut"], range=normed)
    return add(name, "add", y, shortcut, range=weights.get("sum"))


def _add_exit(layers: _LayerList, x: str, weights: Tree, *, name: str, padding: int) -> None:
    """Adds an exit head, which ends a segment."""
    y = layers.add(f"{name}_conv", "conv", x, padding=padding, weights={"kernel": weights["conv"]})
    y = layers.add(f"{name}_bn", "batch_norm", y, weights=weights["bn"], range=weights.get("normed"))
    y = layers.add(f"{name}_act", "leaky_relu", y, range=weights.get("act"))
    y = layers.add(f"{name}_mean", "mean", y, range=weights.get("mean"))
    logits = layers.add(f"{name}_logits", "linear", y, weights=weights["classifier"])
    confidence = layers.add(f"{name}_confidence", "linear", y, weights=weights["confidence"])
    layers.end_segment(features=x, logits=logits, confidence=confidence)


def _add_tail(layers: _LayerList, x: str, weights: Tree) -> None:
    """Adds what follows the last block, which ends the last segment."""
    x = layers.add_normed("", "head", "linear", x, weights, act="swish")
    x = layers.add("head_mean", "mean", x, range=weights.get("mean"))
    x = layers.add("last", "linear", x, weights=weights["last"], range=weights.get("last_normed"))
    x = layers.add("last_act", "swish", x, range=weights.get("last_act"))
    x = layers.add("logits", "linear", x, weights=weights["classifier"])
    layers.end_segment(features=None, logits=x, confidence=None)
