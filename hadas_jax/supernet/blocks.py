"""The parts of an elastic MBConv backbone with exits: one set of parameters serves every width, kernel size and depth.

Narrower layers use the leading channels, smaller kernels the centre of the largest one. Inputs carry zeros in their
inactive channels, so convolutions need masks on their outputs alone; C and k are always the largest.
Stem, block and tail follow AttentiveNAS (https://arxiv.org/abs/2011.09011). Exit heads are HADAS's
(https://arxiv.org/abs/2212.03354), one per block position, shared by all backbones: 3x3 convolution, batch norm, leaky
ReLU, pooling, a linear classifier and beside it a learned confidence.
Shapes: B batch, H, W image, C channels, K classes, N block positions.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jax.typing import ArrayLike, DTypeLike

from hadas_jax.spaces.mbconv import MBConvSpace, Stage, make_divisible
from hadas_jax.supernet import layers
from hadas_jax.supernet.layers import Tree, linear
from hadas_jax.supernet.quantisation import FLOAT32, UNIT, Storage, Stored, stored, swish
from hw_models import NumberFormat

# What is skipped: nothing; blocks; or blocks, and of the others the kernel taps and middle channels beyond the
# backbone's (each block is compiled for every kernel and ratio; gradients keep the residuals of all of them, unless
# blocks are computed twice).
Skip = Literal["nothing", "blocks", "all"]


class BlockSetting(NamedTuple):
    """What one block takes of a backbone; all int32[]."""

    in_width: jax.Array
    out_width: jax.Array
    kernel: jax.Array
    expand: jax.Array


def _fan_out_std(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> jax.Array:
    """Returns sqrt(2 / fan out) everywhere, for convolutions [.., C, O]; see `network.initialise`."""
    return jnp.full(shape, (2.0 / (math.prod(shape[:-2]) * shape[-1])) ** 0.5, dtype)


def _depthwise_std(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> jax.Array:
    """Returns sqrt(2 / fan in) everywhere, for depthwise kernels [k, k, C]."""
    return jnp.full(shape, (2.0 / (shape[0] * shape[1])) ** 0.5, dtype)


def _keep_channels(x: jax.Array, active: jax.Array) -> jax.Array:
    """Sets all but the leading `active` channels of [..., C] to zero."""
    mask = (jnp.arange(x.shape[-1]) < active).astype(x.dtype)
    return x * layers.along_channels(mask, x)


def active_taps(size: int, active: jax.Array) -> jax.Array:
    """Returns float32[size, size, 1] with ones for the centre `active` x `active` taps."""
    inside = (jnp.abs(jnp.arange(size) - size // 2) <= active // 2).astype(jnp.float32)
    return inside[:, None, None] * inside[None, :, None]


class _Pointwise(nn.Module):
    """1x1 convolution to `features` channels, without bias."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [..., C] to [..., features]."""
        return x @ self.param("kernel", _fan_out_std, (x.shape[-1], self.features)).astype(x.dtype)


class _Depthwise(nn.Module):
    """Depthwise convolution with an elastic kernel size."""

    kernel_size: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array, kernel_size: jax.Array) -> jax.Array:
        """Convolves [B, H, W, C] with the centre `kernel_size` taps."""
        shape = (self.kernel_size, self.kernel_size, x.shape[-1])
        kernel = self.param("kernel", _depthwise_std, shape)
        active = kernel * active_taps(self.kernel_size, kernel_size)
        return layers.depthwise_conv(x, active.astype(x.dtype), self.stride)


@dataclasses.dataclass(frozen=True)
class _Storing:
    """How a module's activations are stored.

    Attributes:
        storage: The format, and how ranges are found.
        observes: Batch norm takes the batch's own statistics; nothing is rounded.
    """

    storage: Storage
    observes: bool

    @property
    def number_format(self) -> NumberFormat:
        """The format that activations are rounded to."""
        return NumberFormat.FP32 if self.observes else self.storage.number_format

    def __call__(self, name: str, x: jax.Array, active: jax.Array | None = None) -> jax.Array:
        """Stores an activation; to be called within a module.

        Args:
            name: What it is called in the module.
            x: [..., C].
            active: int32[], the leading channels that count for its range; None: all, or the others are zero.
        """
        if self.observes and self.storage.number_format == NumberFormat.INT8 and active is not None:
            Stored(self.storage, self.observes, name=name)(_keep_channels(x, active))
            return x
        return Stored(self.storage, self.observes, name=name)(x)

    def swish(self, name: str, x: jax.Array, active: jax.Array | None = None) -> jax.Array:
        """Stores what swish makes of an activation that is stored."""
        return self(name, swish(x, self.number_format), active)

    def logits(self, x: jax.Array) -> jax.Array:
        """Returns logits float32 as they are stored: 8 bit would not tell scores apart, and are not used."""
        return stored(x, self.number_format).astype(jnp.float32)


class _SqueezeExcite(nn.Module):
    """Squeeze-and-excitation with an elastic hidden width: make_divisible(active channels // 4)."""

    storing: "_Storing"

    @nn.compact
    def __call__(self, x: jax.Array, active: jax.Array) -> jax.Array:
        """Gates the channels of [B, H, W, C]."""
        channels, store = x.shape[-1], self.storing
        hidden = make_divisible(channels // 4)
        pooled = store("pooled", jnp.mean(x, (1, 2)))
        squeezed = _keep_channels(jax.nn.relu(linear(hidden, pooled, name="squeeze")), make_divisible(active // 4))
        excited = store("excited", linear(channels, store("squeezed", squeezed), name="excite"), active)
        gate = stored(jax.nn.hard_sigmoid(excited), store.number_format, UNIT)
        return store("gated", x * gate[:, None, None, :])


class Stem(nn.Module):
    """The first 3x3 convolution of a space; for `use_batch_stats` see `BatchNorm`."""

    space: MBConvSpace
    use_batch_stats: bool = False
    storage: Storage = FLOAT32

    @nn.compact
    def __call__(self, images: jax.Array, width: jax.Array) -> jax.Array:
        """Maps images [B, H, W, channels] to [B, H', W', C] with the leading `width` channels active."""
        widest, stride = max(self.space.stem_width), self.space.stem_stride
        store = _Storing(self.storage, self.use_batch_stats)
        kernel = self.param("kernel", _fan_out_std, (3, 3, images.shape[-1], widest))
        x = layers.conv(store("images", images), kernel.astype(images.dtype), stride=stride, padding=1)
        x = store("normed", layers.BatchNorm(self.use_batch_stats, name="bn")(x), width)
        return _keep_channels(store.swish("act", x, width), width)


class MBConv(nn.Module):
    """Inverted residual block with a shortcut on every block.

    Attributes:
        stage: The options of the block's stage.
        stride: 1 or 2.
        convolve_shortcut: The shortcut is a 1x1 convolution wherever the active widths differ.
        use_batch_stats: See `BatchNorm`.
        expands: The block has an expanding convolution, whatever its ratio; None: as the stage's options say.
        storage: How activations are stored.
    """

    stage: Stage
    stride: int
    convolve_shortcut: bool
    use_batch_stats: bool = False
    expands: bool | None = None
    storage: Storage = FLOAT32

    @nn.compact
    def __call__(self, x: jax.Array, setting: BlockSetting, keep: jax.Array | None = None) -> jax.Array:
        """Maps [B, H, W, C] to [B, H', W', C'], C' the stage's largest width.

        Args:
            x: Features with zeros in inactive channels.
            setting: What is active.
            keep: float32[B], factors of the residual branch for drop-connect; None: all ones.
        """
        stage, out_max, store = self.stage, max(self.stage.width), _Storing(self.storage, self.use_batch_stats)
        y, mid_width = x, setting.in_width

        def normed(name: str, y: jax.Array, width: jax.Array) -> jax.Array:
            return store(f"{name}_normed", layers.BatchNorm(self.use_batch_stats, name=f"{name}_bn")(y), width)

        if stage.expands if self.expands is None else self.expands:
            mid_max = make_divisible(x.shape[-1] * max(stage.expand))
            mid_width = make_divisible(setting.in_width * setting.expand)
            y = normed("expand", _Pointwise(mid_max, name="expand")(y), mid_width)
            y = store.swish("expand_act", y, mid_width)
        y = _Depthwise(max(stage.kernel), self.stride, name="depthwise")(_keep_channels(y, mid_width), setting.kernel)
        y = store.swish("depthwise_act", normed("depthwise", y, mid_width), mid_width)
        y = _keep_channels(y, mid_width)
        if stage.se:
            y = _SqueezeExcite(store, name="se")(y, mid_width)
        y = normed("project", _Pointwise(out_max, name="project")(y), setting.out_width)
        if keep is not None:
            y = y * keep.astype(y.dtype)[:, None, None, None]
        return store("sum", _keep_channels(y + self._shortcut(x, setting), setting.out_width))

    def _shortcut(self, x: jax.Array, setting: BlockSetting) -> jax.Array:
        out_max, store = max(self.stage.width), _Storing(self.storage, self.use_batch_stats)
        if self.stride > 1:
            x = store("half", layers.half_size_average(x))
        same = jnp.pad(x, ((0, 0),) * 3 + ((0, max(out_max - x.shape[-1], 0)),))[..., :out_max]
        if not self.convolve_shortcut:
            return same
        convolved = store("shortcut_normed", _Pointwise(out_max, name="shortcut")(x), setting.out_width)
        return jnp.where(setting.in_width == setting.out_width, same, convolved)


def run_block(
    block: MBConv,
    weights: Tree,
    stats: Tree | None,
    x: jax.Array,
    setting: BlockSetting,
    keep: jax.Array | None = None,
    active: jax.Array | None = None,
    *,
    keep_stats: bool,
    skip: Skip,
    remat: bool,
) -> tuple[jax.Array, Tree]:
    """Runs one block where it is active, otherwise passes its input on, with statistics of zero.

    Args:
        block: With `use_batch_stats` where `stats` is None.
        weights: Of the block.
        stats: Given batch-norm statistics; None: the batch's own normalise.
        x: Features with zeros in inactive channels.
        setting: What is active in the block.
        keep: Factors for drop-connect, see `MBConv`.
        active: bool[]; None: always.
        keep_stats: Return the batch's own statistics.
        skip: What is skipped instead of masked.
        remat: For gradients keep the block's input alone and compute it twice.
    """
    operands = (weights, stats, x, setting, keep)
    again = jax.checkpoint if remat else lambda function: function

    def run(weights: Tree, stats: Tree | None, x: jax.Array, *inputs: Any) -> tuple[jax.Array, Tree]:
        return layers.call(block, weights, stats, x, *inputs, keep_stats=keep_stats)

    shapes = jax.eval_shape(run, *operands)[1] if keep_stats else {}

    def cut_run(stage: Stage) -> Callable[..., tuple[jax.Array, Tree]]:
        small = block.clone(stage=stage, expands=block.stage.expands)

        def branch(weights: Tree, stats: Tree | None, x: jax.Array, *inputs: Any) -> tuple[jax.Array, Tree]:
            sizes = {"in_width": x.shape[-1], "out_width": max(stage.width)}
            sizes |= {"kernel": max(stage.kernel), "expand": max(stage.expand)}
            weights, stats = (cut_block(tree, block.stage, **sizes) for tree in (weights, stats))
            y, found = layers.call(small, weights, stats, x, *inputs, keep_stats=keep_stats)
            return y, jax.tree.map(lambda leaf, whole: jnp.pad(leaf, (0, whole.size - leaf.size)), found, shapes)

        return branch

    def passed_on(weights: Tree, stats: Tree | None, x: jax.Array, *inputs: Any) -> tuple[jax.Array, Tree]:
        return x, jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    if skip == "all":
        branches = [again(cut_run(stage)) for stage in _fixed_choices(block.stage)]
        index = _choice_index(block.stage, setting)
        if active is not None:
            branches, index = [passed_on, *branches], jnp.where(active, index + 1, 0)
        return jax.lax.switch(index, branches, *operands)
    if active is None:
        return again(run)(*operands)
    if skip == "blocks":
        return jax.lax.cond(active, again(run), passed_on, *operands)
    y, found = again(run)(*operands)
    return jnp.where(active, y, x), found


class Tail(nn.Module):
    """Last convolutions and classifier of a space; for `use_batch_stats` see `BatchNorm`."""

    space: MBConvSpace
    use_batch_stats: bool = False
    storage: Storage = FLOAT32

    @nn.compact
    def __call__(
        self, x: jax.Array, in_width: jax.Array, last_width: jax.Array, keep: jax.Array | None = None
    ) -> jax.Array:
        """Maps the last stage's features [B, H, W, C] to logits float32[B, K].

        Args:
            x: Features with zeros in inactive channels.
            in_width: int32[], their active channels.
            last_width: int32[], active channels of the last convolution.
            keep: float32[B, largest last width], factors of the classifier's inputs for dropout; None: all ones.
        """
        space, store = self.space, _Storing(self.storage, self.use_batch_stats)
        head_max = make_divisible(max(space.stages[-1].width) * space.head_expand)
        width = make_divisible(in_width * space.head_expand)
        x = layers.BatchNorm(self.use_batch_stats, name="head_bn")(_Pointwise(head_max, name="head")(x))
        x = _keep_channels(store.swish("head_act", store("head_normed", x, width), width), width)
        x = _Pointwise(max(space.last_width), name="last")(store("mean", jnp.mean(x, (1, 2))))
        x = _keep_channels(store.swish("last_act", store("last_normed", x, last_width), last_width), last_width)
        if keep is not None:
            x = x * keep.astype(x.dtype)
        return store.logits(linear(space.classes, x, name="classifier"))


def head_padding(height: int, width: int) -> int:
    """Padding of a head's 3x3 convolution: none where the map holds the kernel, else 1."""
    return 0 if min(height, width) >= 3 else 1


class ExitHead(nn.Module):
    """One exit head.

    Attributes:
        width: Channels of its convolution.
        classes: K.
        use_batch_stats: See `BatchNorm`.
        storage: How activations are stored.
    """

    width: int
    classes: int
    use_batch_stats: bool = False
    storage: Storage = FLOAT32

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Maps features [B, H, W, C] to logits float32[B, K] and the confidence's logit float32[B]."""
        store = _Storing(self.storage, self.use_batch_stats)
        kernel = self.param("conv", _fan_out_std, (3, 3, x.shape[-1], self.width))
        x = layers.conv(x, kernel.astype(x.dtype), stride=1, padding=head_padding(*x.shape[1:3]))
        x = store("normed", layers.BatchNorm(self.use_batch_stats, name="bn")(x))
        x = store("mean", jnp.mean(store("act", jax.nn.leaky_relu(x, 0.01)), (1, 2)))
        logits, confidence = linear(self.classes, x, name="classifier"), linear(1, x, name="confidence")[:, 0]
        return store.logits(logits), store.logits(confidence)


@struct.dataclass
class Drops:
    """Factors, 0 where dropped and 1 / (1 - rate) elsewhere.

    Attributes:
        blocks: float32[N, B], of the residual branch of the blocks after the first of a stage.
        last: float32[B, C], of the inputs of the classifier.
    """

    blocks: jax.Array
    last: jax.Array


def draw_drops(key: jax.Array, space: MBConvSpace, batch: int, *, dropout: ArrayLike, drop_connect: ArrayLike) -> Drops:
    """Draws factors for one pass.

    Args:
        key: PRNG key.
        space: Static.
        batch: B.
        dropout: float32[], rate of the classifier's inputs; 0 leaves all as they are.
        drop_connect: float32[], rate of the last block; it rises linearly with the block's position from 0
            (EfficientNet, arXiv 1905.11946; AttentiveNAS).
    """
    block_key, last_key = jax.random.split(key)
    depth = jnp.arange(space.positions, dtype=jnp.float32) / max(space.positions - 1, 1)
    return Drops(
        blocks=layers.drop_factors(block_key, (depth * drop_connect)[:, None], (space.positions, batch)),
        last=layers.drop_factors(
            last_key, jnp.asarray(dropout, jnp.float32)[None, None], (batch, max(space.last_width))
        ),
    )


def _fixed_choices(stage: Stage) -> tuple[Stage, ...]:
    """Returns the stage with one kernel size and one expand ratio each, ratios fastest."""
    pairs = itertools.product(stage.kernel, stage.expand)
    return tuple(dataclasses.replace(stage, kernel=(kernel,), expand=(expand,)) for kernel, expand in pairs)


def _choice_index(stage: Stage, setting: BlockSetting) -> jax.Array:
    """Returns int32[]: which of `_fixed_choices` a block takes."""
    kernel, expand = (
        jnp.argmax(jnp.array(options, jnp.int32) == value).astype(jnp.int32)
        for options, value in ((stage.kernel, setting.kernel), (stage.expand, setting.expand))
    )
    return kernel * len(stage.expand) + expand


def cut_block(tree: Tree, stage: Stage, *, in_width: int, out_width: int, kernel: int, expand: int) -> Tree:
    """Cuts smaller blocks out of those of a stage: the leading channels, the centre of the kernel.

    Args:
        tree: Weights or batch-norm statistics of one block, or of several with a leading axis over them.
        stage: Of the blocks.
        in_width: Channels that remain of the input, likewise of the output.
        out_width: See above.
        kernel: Size of the depthwise kernel that remains.
        expand: Ratio of the middle channels that remain to those of the input.
    """
    mid = make_divisible(in_width * expand) if stage.expands else in_width
    hidden = make_divisible(mid // 4)
    sizes: dict[str, tuple[int | None, int | None]] = {
        "expand": (in_width, mid),
        "expand_bn": (None, mid),
        "depthwise": (kernel, mid),
        "depthwise_bn": (None, mid),
        "squeeze": (mid, hidden),
        "excite": (hidden, mid),
        "project": (mid, out_width),
        "project_bn": (None, out_width),
        "shortcut": (in_width, out_width),
    }
    return cut_layers(tree, sizes)


def cut_layers(tree: Tree, sizes: dict[str, tuple[int | None, int | None]]) -> Tree:
    """Cuts layers to the leading input and output channels, depthwise kernels to their centre.

    Args:
        tree: Weights or statistics, each layer's by its name.
        sizes: Per layer what remains of its inputs (of a depthwise kernel: its size) and outputs; None: all.
    """

    def cut(path: tuple, leaf: jax.Array) -> jax.Array:
        layer, name = path[-2].key, path[-1].key
        if name == "range":
            return leaf
        inputs, outputs = sizes[layer]
        if name != "kernel":
            return leaf[..., :outputs]
        if layer != "depthwise" or inputs is None:
            return leaf[..., :inputs, :outputs]
        rim = (leaf.shape[-2] - inputs) // 2
        return leaf[..., rim : rim + inputs, rim : rim + inputs, :outputs]

    return jax.tree_util.tree_map_with_path(cut, tree)
