import gzip
import importlib.util
import struct
from pathlib import Path

import numpy as np
import pytest

from hadas_jax.data import load_dataset

TRAIN, TEST = 90, 20


@pytest.fixture(scope="module")
def script():
    """The experiment as a module."""
    path = Path(__file__).parents[2] / "experiments" / "fashion_mnist_npz.py"
    spec = importlib.util.spec_from_file_location("fashion_mnist_npz", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def idx(array):
    """The bytes of an idx file."""
    return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {
        "train-images-idx3-ubyte": rng.integers(0, 256, (TRAIN, 28, 28)).astype(np.uint8),
        "train-labels-idx1-ubyte": (np.arange(TRAIN) % 10).astype(np.uint8),
        "t10k-images-idx3-ubyte": rng.integers(0, 256, (TEST, 28, 28)).astype(np.uint8),
        "t10k-labels-idx1-ubyte": (np.arange(TEST) % 10).astype(np.uint8),
    }


@pytest.fixture(params=["plain", "packed"])
def folder(request, tmp_path, arrays):
    for name, array in arrays.items():
        if request.param == "packed":
            (tmp_path / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
        else:
            (tmp_path / name).write_bytes(idx(array))
    return tmp_path


def test_the_npz_file_is_a_data_set_with_its_own_test_images(script, folder, arrays, capsys):
    path = folder / "out.npz"
    assert script.main([str(folder), "-o", str(path)]) == 0
    assert "90 and 20 images of 28 x 28 pixels" in capsys.readouterr().out
    splits = load_dataset(f"npz:{path}", seed=0)
    assert splits.class_names[9] == "Ankle boot"
    assert splits.train.count == TRAIN - 2 * 14
    assert (splits.test.images[..., 0] == arrays["t10k-images-idx3-ubyte"]).all()
    assert splits.test.labels.tolist() == arrays["t10k-labels-idx1-ubyte"].tolist()


def test_classes_may_be_named_after_digits(script, folder):
    path = folder / "out.npz"
    assert script.main([str(folder), "-o", str(path), "--digits"]) == 0
    assert load_dataset(f"npz:{path}", seed=0).class_names == tuple("0123456789")


def test_a_file_is_replaced_only_where_that_is_asked_for(script, folder, capsys):
    path = folder / "out.npz"
    path.write_text("mine")
    assert script.main([str(folder), "-o", str(path)]) == 2
    assert "is there already; --overwrite replaces it" in capsys.readouterr().err
    assert path.read_text() == "mine"
    assert script.main([str(folder), "-o", str(path), "--overwrite"]) == 0
    assert load_dataset(f"npz:{path}", seed=0).classes == 10


def bad_file(array, case):
    content = idx(array)
    return {
        "empty": b"",
        "text": b"hello, world",
        "of other numbers": b"\0\0\x0d" + content[3:],
        "cut": content[:-5],
        "cut in its sizes": content[:7],
        "too long": content + b"0",
        "of another rank": idx(array[..., None]),
        "with other labels": idx(array[:-1]),
    }[case]


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("empty", "expected an idx file of unsigned bytes, got one that starts with b''"),
        ("text", "expected an idx file of unsigned bytes, got one that starts with b'hell'"),
        ("of other numbers", "expected an idx file of unsigned bytes"),
        ("cut", "expected 15680 bytes for shape (20, 28, 28), got 15675"),
        ("cut in its sizes", "expected 3 sizes, got a file of 7 bytes"),
        ("too long", "expected 15680 bytes for shape (20, 28, 28), got 15681"),
        ("of another rank", "expected test_images [N, H, W] and test_labels [N], got (20, 28, 28, 1) and (20,)"),
        ("with other labels", "expected test_images [N, H, W] and test_labels [N], got (19, 28, 28) and (20,)"),
    ],
)
def test_files_of_another_form_are_refused(script, tmp_path, arrays, capsys, case, message):
    for name, array in arrays.items():
        (tmp_path / name).write_bytes(idx(array))
    name = "t10k-images-idx3-ubyte"
    (tmp_path / name).write_bytes(bad_file(arrays[name], case))
    assert script.main([str(tmp_path), "-o", str(tmp_path / "out.npz")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out.npz").exists()


@pytest.mark.parametrize("content", [b"no gzip", gzip.compress(b"x" * 999, mtime=0)[:-9]])
def test_broken_gzip_files_are_refused(script, folder, capsys, content):
    path = folder / "train-images-idx3-ubyte"
    path.unlink(missing_ok=True)
    path.with_name(f"{path.name}.gz").write_bytes(content)
    assert script.main([str(folder), "-o", str(folder / "out.npz")]) == 2
    assert "expected a readable idx file" in capsys.readouterr().err


def test_missing_files_are_named(script, tmp_path, capsys):
    assert script.main([str(tmp_path), "-o", str(tmp_path / "out.npz")]) == 2
    assert "expected the file train-images-idx3-ubyte or train-images-idx3-ubyte.gz, got neither" in (
        capsys.readouterr().err
    )


def test_an_output_that_cannot_be_written_is_refused(script, folder, capsys):
    assert script.main([str(folder), "-o", str(folder / "none" / "out.npz")]) == 2
    assert "cannot be written" in capsys.readouterr().err
