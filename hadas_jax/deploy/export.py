"""Exports a static network: one file for each segment, since run-time branches export badly, and a manifest.

Batch norm is folded into the layers before it. Formats:
- `stablehlo`: each segment as `jax.export` serialises it, for CPU, CUDA and TPU; `jax.export.deserialize` reads it.
- `onnx`: each segment as ONNX, and a copy of the runtime; needs the extra `onnx`.
- `saved`: layers and weights as data, for `hadas_jax.deploy.static_network.load_network`.
"""

from pathlib import Path
from typing import Literal, get_args

import jax
import jax.numpy as jnp

from hadas_jax.deploy import runtime
from hadas_jax.deploy.manifest import ImageValues, write_manifest
from hadas_jax.deploy.onnx_file import require_onnx, segment_as_onnx
from hadas_jax.deploy.runtime import MANIFEST
from hadas_jax.deploy.static_apply import output_shapes, run_segment
from hadas_jax.deploy.static_network import NETWORK, WEIGHTS, StaticNetwork, require_place, write_network
from hadas_jax.whole_folders import whole_folder
from hadas_jax.workdir import ARCHITECTURE
from hw_models.whole_files import write_whole

Format = Literal["stablehlo", "onnx", "saved"]
FORMATS = get_args(Format)
PLATFORMS = ("cpu", "cuda", "tpu")
_OWN = (MANIFEST, "segment*.onnx", "segment*.jax_export", "runtime.py", NETWORK, WEIGHTS, ARCHITECTURE)


def export_network(
    directory: Path | str,
    network: StaticNetwork,
    *,
    format: Format = "stablehlo",
    batch: int | None = None,
    values: ImageValues | None = None,
    overwrite: bool = False,
) -> None:
    """Writes an export, whole or not at all.

    Args:
      directory: created if need be.
      network: to export.
      format: of the segments.
      batch: images at once; None: any number.
      values: of the images that it was trained on, which the runtime checks; None: unknown.
      overwrite: replace the export that is there.

    Raises:
      ValueError: an unknown format, a missing extra, a batch below 1, or the directory holds something else.
    """
    if format not in FORMATS:
        raise ValueError(f"--format: expected one of {', '.join(FORMATS)}, got {format!r}")
    if batch is not None and batch < 1:
        raise ValueError(f"--batch: expected at least 1, got {batch}")
    if format == "onnx":
        require_onnx()
    directory = require_place(directory, _OWN, mark=MANIFEST, overwrite=overwrite)
    network = network.folded()
    with whole_folder(directory, mark=MANIFEST) as folder:
        files = _write_saved(folder, network) if format == "saved" else _write_segments(folder, network, format, batch)
        write_manifest(folder, network, format=format, batch=batch, files=files, values=values)


def _write_saved(folder: Path, network: StaticNetwork) -> list[str]:
    write_network(folder, network)
    return [NETWORK, WEIGHTS, ARCHITECTURE]


def _write_segments(folder: Path, network: StaticNetwork, format: Format, batch: int | None) -> list[str]:
    suffix = "onnx" if format == "onnx" else "jax_export"
    blobs = _as_onnx(network, batch) if format == "onnx" else _as_stablehlo(network, batch)
    files = [f"segment{number}.{suffix}" for number in range(len(network.segments))]
    for name, blob in zip(files, blobs, strict=True):
        write_whole(folder / name, blob)
    if format == "onnx":
        write_whole(folder / "runtime.py", Path(runtime.__file__).read_bytes())
    return files


def _as_onnx(network: StaticNetwork, batch: int | None) -> list[bytes]:
    shapes = _shapes(network)
    return [segment_as_onnx(each, network.weights, shapes=shapes, batch=batch) for each in network.segments]


def _as_stablehlo(network: StaticNetwork, batch: int | None) -> list[bytes]:
    """Functions of [B, ...] that return the outputs of a segment in their order."""
    shapes = _shapes(network)
    first = "B" if batch is None else str(batch)
    blobs = []
    for segment in network.segments:

        def run(x: jax.Array, segment=segment) -> tuple[jax.Array, ...]:  # type: ignore[no-untyped-def]
            found = run_segment(segment, network.weights, x, portable=True)
            return tuple(found[name] for name in segment.outputs)

        axes = jax.export.symbolic_shape(", ".join(map(str, (first, *shapes[segment.takes]))))
        exported = jax.export.export(jax.jit(run), platforms=PLATFORMS)(jax.ShapeDtypeStruct(axes, jnp.float32))
        blobs.append(bytes(exported.serialize()))
    return blobs


def _shapes(network: StaticNetwork) -> dict[str, tuple[int, ...]]:
    channels = network.architecture.space.in_channels
    return output_shapes(network.segments, network.weights, image_size=network.image_size, channels=channels)
