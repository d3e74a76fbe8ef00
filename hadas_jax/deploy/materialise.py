"""The chosen sub-network cut out of the supernet: layers and weights of its own size, nothing masked.

Channels are the leading ones, kernels the centre of the largest, blocks and exit heads those that the network has
(AttentiveNAS, arXiv 2011.09011; exit heads: HADAS, arXiv 2212.03354). Batch-norm statistics are the backbone's own.
Shapes: B batch, H, W image, C input and O output channels, k kernel.

Where a selected network comes from: the data and the supernet of its search.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hadas_jax.data import LabelledImages, Splits, load
from hadas_jax.data.splits import standardised_by
from hadas_jax.deploy.architecture import (
    Architecture,
    Normalisation,
    architecture_file,
    place_from,
    read_architecture,
    supernet_directory,
)
from hadas_jax.deploy.layers import IMAGES, LayerList, Segment, Weights
from hadas_jax.deploy.static_network import StaticNetwork, holds_network, load_network
from hadas_jax.settings import SearchSettings
from hadas_jax.spaces import Backbone, MBConvSpace
from hadas_jax.spaces.mbconv import make_divisible
from hadas_jax.supernet import BatchStats, Parameters, Tree, apply, estimate_batch_stats, resize
from hadas_jax.supernet.blocks import head_padding
from hadas_jax.supernet.layers import bicubic_weights
from hadas_jax.supernet.network import convolves_shortcut
from hadas_jax.training.run import TrainingRun


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
        space: Of the supernet.
        params: Shared weights.
        stats: batch-norm statistics of the backbone, from `estimate_batch_stats`.
        backbone: One design of the space.
        exits: Blocks that an exit follows, counted over the backbone's own blocks from 0, rising.
        image_size: Height and width of the images that the network gets; resized where the backbone has another.

    Returns:
        One segment for each exit and a last one for the classifier, and their weights.
    """
    cut = _Cut(space, params, stats, backbone)
    size = int(backbone.resolution)
    x = cut.resize(IMAGES, image_size, size)
    x, size = cut.stem(x, size)
    block = 0
    for s, stage in enumerate(space.stages):
        for d in range(int(backbone.depth[s])):
            stride = stage.stride if d == 0 else 1
            x, size = cut.block(x, s, d, name=f"block{block}", stride=stride), -(-size // stride)
            if block in exits:
                cut.exit(x, s, d, name=f"exit{block}", size=size)
            block += 1
    cut.tail(x)
    return cut.layers.segments, jax.tree.map(jnp.asarray, cut.layers.weights)


class _Cut:
    """Adds the parts of one network to a list of layers."""

    def __init__(self, space: MBConvSpace, params: Parameters, stats: BatchStats, backbone: Backbone) -> None:
        self.layers = LayerList()
        self._space = space
        self._params, self._stats = jax.tree.map(np.asarray, (params, stats))
        self._width = np.asarray(backbone.width).tolist()
        self._kernel, self._expand = np.asarray(backbone.kernel).tolist(), np.asarray(backbone.expand).tolist()

    def resize(self, x: str, before: int, after: int) -> str:
        if before == after:
            return x
        rows = jnp.asarray(bicubic_weights(before, after), jnp.float32)
        return self.layers.add("resize", "resize", x, weights={"rows": rows})

    def stem(self, x: str, size: int) -> tuple[str, int]:
        weights, stats = self._params.backbone["stem"], self._stats.backbone["stem"]
        width, stride = self._width[0], self._space.stem_stride
        kernel: dict[str, Any] = {"kernel": weights["kernel"][..., :width]}
        x = self.layers.add("stem", "conv", x, stride=stride, padding=1, weights=kernel)
        x = self._norm("stem_bn", x, weights["bn"], stats["bn"], width)
        return self.layers.add("stem_act", "swish", x), -(-size // stride)

    def block(self, x: str, s: int, d: int, *, name: str, stride: int) -> str:
        stage, kernel = self._space.stages[s], self._kernel[s]
        weights, stats = self._row("backbone", s, d)
        before, after = self._width[s if d == 0 else s + 1], self._width[s + 1]
        add, y, mid = self.layers.add, x, before
        if stage.expands:
            mid = make_divisible(before * self._expand[s])
            y = self._linear(f"{name}_expand", y, weights["expand"], before, mid)
            y = self._norm(f"{name}_expand_bn", y, weights["expand_bn"], stats["expand_bn"], mid)
            y = add(f"{name}_expand_act", "swish", y)
        rim = max(stage.kernel) // 2 - kernel // 2
        taps = weights["depthwise"]["kernel"][rim : rim + kernel, rim : rim + kernel, :mid]
        y = add(f"{name}_depthwise", "depthwise", y, stride=stride, padding=kernel // 2, weights={"kernel": taps})
        y = self._norm(f"{name}_depthwise_bn", y, weights["depthwise_bn"], stats["depthwise_bn"], mid)
        y = add(f"{name}_depthwise_act", "swish", y)
        if stage.se:
            y = self._squeeze_excite(name, y, weights["se"], mid)
        y = self._linear(f"{name}_project", y, weights["project"], mid, after)
        y = self._norm(f"{name}_project_bn", y, weights["project_bn"], stats["project_bn"], after)
        shortcut = add(f"{name}_half", "half", x) if stride > 1 else x
        if d == 0 and convolves_shortcut(self._space, s) and before != after:
            shortcut = self._linear(f"{name}_shortcut", shortcut, weights["shortcut"], before, after)
        return add(name, "add", y, shortcut)

    def exit(self, x: str, s: int, d: int, *, name: str, size: int) -> None:
        first = self._space.first_exit - sum(max(stage.depth) for stage in self._space.stages[:s])
        row = d - max(first, 0)
        weights = jax.tree.map(lambda leaf: leaf[row], self._params.heads[f"stage{s}"])
        stats = jax.tree.map(lambda leaf: leaf[row], self._stats.heads[f"stage{s}"])
        kernel = {"kernel": weights["conv"][:, :, : self._width[s + 1]]}
        y = self.layers.add(f"{name}_conv", "conv", x, padding=head_padding(size, size), weights=kernel)
        y = self._norm(f"{name}_bn", y, weights["bn"], stats["bn"], self._space.exit_width)
        y = self.layers.add(f"{name}_mean", "mean", self.layers.add(f"{name}_act", "leaky_relu", y))
        logits = self.layers.add(f"{name}_logits", "linear", y, weights=weights["classifier"])
        confidence = self.layers.add(f"{name}_confidence", "linear", y, weights=weights["confidence"])
        self.layers.end_segment(features=x, logits=logits, confidence=confidence)

    def tail(self, x: str) -> None:
        weights, stats = self._params.backbone["tail"], self._stats.backbone["tail"]
        before, last = self._width[-2], self._width[-1]
        head = make_divisible(before * self._space.head_expand)
        x = self._linear("head", x, weights["head"], before, head)
        x = self.layers.add("head_act", "swish", self._norm("head_bn", x, weights["head_bn"], stats["head_bn"], head))
        x = self._linear("last", self.layers.add("head_mean", "mean", x), weights["last"], head, last)
        x = self._linear("logits", self.layers.add("last_act", "swish", x), weights["classifier"], last, None)
        self.layers.end_segment(features=None, logits=x, confidence=None)

    def _squeeze_excite(self, name: str, x: str, weights: Tree, width: int) -> str:
        hidden, add = make_divisible(width // 4), self.layers.add
        y = add(f"{name}_pooled", "mean", x)
        y = self._linear(f"{name}_squeeze", y, weights["squeeze"], width, hidden)
        y = add(f"{name}_squeeze_act", "relu", y)
        y = self._linear(f"{name}_excite", y, weights["excite"], hidden, width)
        return add(f"{name}_gated", "gate", x, add(f"{name}_gate", "hard_sigmoid", y))

    def _linear(self, name: str, x: str, weights: Tree, before: int, after: int | None) -> str:
        kept = {"kernel": weights["kernel"][:before, :after]}
        if "bias" in weights:
            kept["bias"] = weights["bias"][:after]
        return self.layers.add(name, "linear", x, weights=kept)

    def _norm(self, name: str, x: str, weights: Tree, stats: Tree, width: int) -> str:
        kept = {key: leaf[:width] for key, leaf in {**weights, **stats}.items()}
        return self.layers.add(name, "batch_norm", x, weights=kept)

    def _row(self, part: str, s: int, d: int) -> tuple[Any, Any]:
        """Weights and statistics of block d of a stage."""
        name = f"stage{s}_first" if d == 0 else f"stage{s}_rest"
        trees = getattr(self._params, part)[name], getattr(self._stats, part)[name]
        return trees if d == 0 else jax.tree.map(lambda leaf: leaf[d - 1], trees)


_BATCH = 128


def data_of(architecture: Architecture, *, dataset: str | None = None, data_dir: str | None = None) -> Splits:
    """Returns the data that a network was searched on, divided as then, and standardised as the network takes it.

    Args:
        architecture: The network.
        dataset: Where the images are now; None: where they were.
        data_dir: Likewise.

    Raises:
        ValueError: The data set is not there any more, or another one.
    """
    splits, space = _loaded(architecture, _settings(architecture, dataset, data_dir)), architecture.space
    if splits.channels != space.in_channels or splits.classes > space.classes:
        raise ValueError(
            f"dataset {splits.name}: expected images of {space.in_channels} channels in at most {space.classes} "
            f"classes as the network takes, got {splits.channels} channels and {splits.classes} classes"
        )
    by = architecture.normalisation
    return splits if by is None else standardised_by(splits, by.mean, by.deviation)


def moved(architecture: Architecture, *, dataset: str | None, data_dir: str | None) -> Architecture:
    """Returns a network that says where its images are now, if they were moved."""
    settings = json.loads(json.dumps(_settings(architecture, dataset, data_dir).flat()))
    return architecture.model_copy(update={"origin": architecture.origin.model_copy(update={"settings": settings})})


def _settings(architecture: Architecture, dataset: str | None, data_dir: str | None) -> SearchSettings:
    """The settings of the search, its data where they are now."""
    settings = SearchSettings.from_mapping(architecture.origin.settings, source="origin.settings")
    data = settings.data
    return settings.replace(dataset=dataset or data.dataset, data_dir=data_dir or data.data_dir).absolute()


def _loaded(architecture: Architecture, settings: SearchSettings) -> Splits:
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


class Sources:
    """A selected network beside its supernet.

    Args:
        architecture: The network.
        file: Its ARCH.json.
        dataset: Where the images are now; None: where they were.
        data_dir: Likewise.

    Attributes:
        run: The data, and the supernet as `loaded`.

    Raises:
        ValueError: The data set or the supernet is not there any more, or they are others.
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
        supernet = settings.replace(checkpoint=str(self._directory), space=None, split_seed=None)
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
            dtype=self.run.settings.training.dtype,
        )

    def network(self, folder: Path) -> StaticNetwork:
        """Cuts the network out.

        Args:
            folder: That it will be written to.
        """
        splits, given = self.run.splits, self._architecture
        normalisation = Normalisation(mean=splits.mean, deviation=splits.std)
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
        place: Of the network.
        dataset: Where the images of its search are now; None: where they were.
        data_dir: Likewise.

    Raises:
        ValueError: There is neither, or it does not fit.
    """
    if holds_network(place):
        return load_network(place)
    sources = Sources(read_architecture(place), architecture_file(place), dataset=dataset, data_dir=data_dir)
    return sources.network(Path(place))
