"""Turns the four idx files of Fashion-MNIST into one npz file for `--dataset npz:FILE`.

    apt-get install dataset-fashion-mnist
    python experiments/fashion_mnist_npz.py -o fashion_mnist.npz

Debian's package holds the files as their authors publish them (Xiao et al., 2017, arXiv:1708.07747): 60,000 training
and 10,000 test images of 28x28 grey pixels in ten classes. Any folder with the same four files, packed by gzip or not,
serves as well, MNIST's among them (whose classes are then named after clothes: `--digits` names them after digits).
"""

import argparse
import gzip
import math
import os
import struct
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

FOLDER = Path("/usr/share/datasets/fashion-mnist")
CLOTHES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
DIGITS = tuple("0123456789")
FILES = {
    "images": "train-images-idx3-ubyte",
    "labels": "train-labels-idx1-ubyte",
    "test_images": "t10k-images-idx3-ubyte",
    "test_labels": "t10k-labels-idx1-ubyte",
}
UNSIGNED_BYTES = 8  # idx's code of the element type


def read_idx(path: Path) -> np.ndarray:
    """Returns the array of unsigned bytes that an idx file holds.

    The form: two zero bytes, one for the element type, one for the rank, the sizes as big-endian 32-bit numbers, the
    elements.

    Args:
      path: of the file; read through gzip where it ends in `.gz`.

    Raises:
      ValueError: the file cannot be read, or is no idx file of unsigned bytes, or is too short or too long.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: expected a readable idx file: {error}") from error
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != UNSIGNED_BYTES:
        raise ValueError(f"{path}: expected an idx file of unsigned bytes, got one that starts with {content[:4]!r}")
    start = 4 + 4 * content[3]
    if len(content) < start:
        raise ValueError(f"{path}: expected {content[3]} sizes, got a file of {len(content)} bytes")
    shape = struct.unpack(f">{content[3]}I", content[4:start])
    if len(content) - start != math.prod(shape):
        raise ValueError(f"{path}: expected {math.prod(shape)} bytes for shape {shape}, got {len(content) - start}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def read_folder(folder: Path) -> dict[str, np.ndarray]:
    """Returns the arrays of the npz file, from the four idx files of a folder.

    Raises:
      ValueError: a file is missing, unreadable, or does not fit the others.
    """
    arrays = {}
    for key, name in FILES.items():
        found = [path for path in (folder / name, folder / f"{name}.gz") if path.is_file()]
        if not found:
            hint = "; apt-get install dataset-fashion-mnist brings it" if folder == FOLDER else ""
            raise ValueError(f"{folder}: expected the file {name} or {name}.gz, got neither{hint}")
        arrays[key] = read_idx(found[0])
    for images, labels in (("images", "labels"), ("test_images", "test_labels")):
        shapes = arrays[images].shape, arrays[labels].shape
        if len(shapes[0]) != 3 or shapes[1] != shapes[0][:1]:
            raise ValueError(f"{folder}: expected {images} [N, H, W] and {labels} [N], got {shapes[0]} and {shapes[1]}")
    return arrays


def write_npz(path: Path, arrays: dict[str, np.ndarray], *, overwrite: bool) -> None:
    """Writes the arrays as one file, which is there as a whole or not at all.

    Raises:
      ValueError: the file is there already and is not to be overwritten, or cannot be written.
    """
    if path.exists() and not overwrite:
        raise ValueError(f"{path}: is there already; --overwrite replaces it")
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with partial.open("wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
        partial.replace(path)
    except OSError as error:
        raise ValueError(f"{path}: cannot be written: {error}") from error
    finally:
        partial.unlink(missing_ok=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Reads the command line, converts, and returns the exit code: 2 for a user's mistake."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER, help="of the idx files (default: %(default)s)")
    parser.add_argument("-o", "--output", type=Path, default=Path("fashion_mnist.npz"), help="default: %(default)s")
    parser.add_argument("--digits", action="store_true", help="name the classes 0 to 9")
    parser.add_argument("--overwrite", action="store_true", help="replace the output if it is there")
    options = parser.parse_args(arguments)
    try:
        arrays = read_folder(options.folder)
        names = np.array(DIGITS if options.digits else CLOTHES)
        write_npz(options.output, arrays | {"class_names": names}, overwrite=options.overwrite)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    counts = " and ".join(str(len(arrays[key])) for key in ("images", "test_images"))
    print(f"{options.output}: {counts} images of {' x '.join(map(str, arrays['images'].shape[1:]))} pixels")
    return 0


if __name__ == "__main__":
    sys.exit(main())
