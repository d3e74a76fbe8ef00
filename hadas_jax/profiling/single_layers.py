"""Single layers of every kind to measure, in the form in which this project's networks run them."""

from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hadas_jax.supernet.convolution import conv
from hadas_jax.supernet.depthwise import depthwise_conv
from hw_models import LayerKind, LayerTable, layer_table
from hw_models.measuring.profiling import Case

_SIZES = ((64, 16), (32, 48), (16, 128), (8, 256))  # pixels of a side, channels
_RATIO = 4  # output to input channels of pointwise and linear layers
_DENSE_OUT = 32


def layer_cases(sizes: int, *, batch: int = 1) -> list[Case]:
    """Returns cases of single layers, all layers of a kind in one family.

    Args:
        sizes: number of sizes of each kind, 0 to 4.
        batch: images per run.

    Raises:
        ValueError: `sizes` is out of range.
    """
    if not 0 <= sizes <= len(_SIZES):
        raise ValueError(f"layers: expected 0 to {len(_SIZES)} sizes of each kind, got {sizes}")
    cases = []
    for side, channels in _SIZES[:sizes]:
        for kind in LayerKind:
            layer = SingleLayer(kind, side, channels, batch)
            name = f"layer-{kind.name.lower()}"
            cases.append(Case(f"{name}-{side}-{channels}", name, layer.table(), layer.start, batch))
    return cases


class SingleLayer:
    """One layer on square maps.

    Args:
      kind: of the layer.
      side: height and width of the input map.
      channels: of the input.
      batch: images per run.
    """

    def __init__(self, kind: LayerKind, side: int, channels: int, batch: int) -> None:
        self.kind, self.side, self.channels, self.batch = kind, side, channels, batch

    def table(self) -> LayerTable:
        """Returns its layer table of one row, for one sample."""
        pixels, ins = self.side**2, self.channels
        macs, weights, reads, writes = {
            LayerKind.DENSE: (9 * ins * _DENSE_OUT * pixels, 9 * ins * _DENSE_OUT, ins * pixels, _DENSE_OUT * pixels),
            LayerKind.POINTWISE: (_RATIO * ins**2 * pixels, _RATIO * ins**2, ins * pixels, _RATIO * ins * pixels),
            LayerKind.DEPTHWISE: (9 * ins * pixels, 9 * ins, ins * pixels, ins * pixels),
            LayerKind.POOLING: (ins * pixels, 0, ins * pixels, ins),
            LayerKind.ELEMENTWISE: (ins * pixels, 0, 2 * ins * pixels, ins * pixels),
            LayerKind.LINEAR: (_RATIO * ins**2, _RATIO * ins**2, ins, _RATIO * ins),
        }[self.kind]
        return layer_table(
            [self.kind], [macs], weight_elements=[weights], input_elements=[reads], output_elements=[writes]
        )

    def start(self) -> Callable[[], Any]:
        """Returns a callable that runs it; compiles in the first call alone."""
        return partial(self._compiled, *(jnp.asarray(random_values(shape.shape)) for shape in self._inputs))

    @cached_property
    def _inputs(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Shapes of the input, and of the weights or a second input if there is one."""
        ins = self.channels
        maps = (self.batch, self.side, self.side, ins)
        shapes = {
            LayerKind.DENSE: (maps, (3, 3, ins, _DENSE_OUT)),
            LayerKind.POINTWISE: (maps, (ins, _RATIO * ins)),
            LayerKind.DEPTHWISE: (maps, (3, 3, ins)),
            LayerKind.POOLING: (maps,),
            LayerKind.ELEMENTWISE: (maps, maps),
            LayerKind.LINEAR: ((self.batch, ins), (ins, _RATIO * ins)),
        }[self.kind]
        return tuple(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes)

    @cached_property
    def _compiled(self) -> Callable[..., Any]:
        functions: dict[LayerKind, Callable[..., jax.Array]] = {
            LayerKind.DENSE: partial(conv, stride=1, padding=1),
            LayerKind.POINTWISE: jnp.matmul,
            LayerKind.DEPTHWISE: depthwise_conv,
            LayerKind.POOLING: partial(jnp.mean, axis=(1, 2)),
            LayerKind.ELEMENTWISE: jnp.add,
            LayerKind.LINEAR: jnp.matmul,
        }
        return jax.jit(functions[self.kind]).lower(*self._inputs).compile()


def random_values(shape: tuple[int, ...]) -> np.ndarray:
    """Normal float32 numbers, the same few thousand over and over, which is quick at any size."""
    return np.resize(np.random.default_rng(0).standard_normal(4093, np.float32), shape)
