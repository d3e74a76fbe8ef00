"""Tests of what a file is said to be."""

import gzip
import io
import json
import tarfile
import zipfile

import numpy as np
import pytest

from hw_models.files import what_it_is

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 123456789\n"
PAGE = "<!DOCTYPE html><html><head><title>Drive - Virus scan warning</title></head></html>"


def written(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "an empty file"),
        (POINTER, "a Git LFS pointer, a text file of 134 bytes beginning with 'version https://git-lfs"),
        (PAGE, "a web page of 82 bytes, titled 'Drive - Virus scan warning', beginning with '<!DOCTYPE html>"),
        ("\ufeff\n <html>nothing", "a web page of 18 bytes beginning with '<html>nothing'"),
        ('<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "a web page of 61 bytes"),
        ('{"error": "not found"}', 'a text file of 22 bytes beginning with \'{"error": "not found"}\''),
        ("Über Grenzen", "a text file of 13 bytes beginning with 'Über Grenzen'"),
        ("ä" * 5000, "a text file of 10,000 bytes"),
        ("text".encode("utf-16"), "a text file of 10 bytes beginning with 'text'"),
        (gzip.compress(b"weights", mtime=0), "a gzip archive: unpack it first"),
        (b"\x89HDF\r\n\x1a\n" + bytes(90), "an HDF5 file, as Keras writes (98 bytes)"),
    ],
)
def test_a_file_is_called_what_its_content_says(tmp_path, content, said):
    assert what_it_is(written(tmp_path / "weights.pth.tar", content)).startswith(said)


def test_a_file_of_safetensors_is_told_from_text(tmp_path):
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    content = len(header).to_bytes(8, "little") + header + bytes(4)
    assert what_it_is(written(tmp_path / "x.pth", content)).startswith("a safetensors file")


def test_a_real_tar_archive_is_one_to_unpack(tmp_path):
    with tarfile.open(tmp_path / "x.pth.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("weights"), io.BytesIO())
    assert "a tar archive (10,240 bytes): unpack it first" in what_it_is(tmp_path / "x.pth.tar")


def test_zip_archives_are_told_whole_from_cut(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
        archive.writestr("a", "text" * 100)
    assert what_it_is(tmp_path / "x.pth") is None
    cut = written(tmp_path / "cut.pth", (tmp_path / "x.pth").read_bytes()[:100])
    assert "a zip archive that is cut off after 100 bytes" in what_it_is(cut)


def test_binary_data_without_a_signature_has_no_name(tmp_path):
    assert what_it_is(written(tmp_path / "x", b"\x80\x02}q\x00.")) is None
    np.savez(tmp_path / "x.npz", a=np.zeros(3))
    assert what_it_is(tmp_path / "x.npz") is None
