"""Tests of reading PyTorch's files: containers of all kinds, and files that are something else."""

import zipfile

import numpy as np
import pytest

from hadas_jax.supernet.pytorch_files import read_pytorch, read_tensors

TENSORS = {f"{name}.weight": np.arange(6, dtype=np.float32) + number for number, name in enumerate("abcd")}


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


def tensors(torch, entries=TENSORS):
    return {name: torch.from_numpy(array) for name, array in entries.items()}


def equal(found, wanted=TENSORS):
    return found.keys() == wanted.keys() and all(np.array_equal(found[name], array) for name, array in wanted.items())


def test_the_mapping_with_most_tensors_is_the_state_dict_whatever_its_key(tmp_path, torch):
    own = tensors(torch)
    state = {number: {"step": torch.tensor(1.0), "exp_avg": tensor} for number, tensor in enumerate(own.values())}
    beside = {"acc": torch.tensor(0.9), "epoch": 3, "optimizer": {"state": state, "param_groups": [{"lr": 0.1}]}}
    for content in (
        {"net": own, **beside},
        {"anything": {"inner": own}, **beside},
        [own, {"epoch": 3}],
        {"net": own, "same": own, **beside},
        {"net": own, "net_ema": {name: tensor + 1 for name, tensor in own.items()}},
    ):
        torch.save(content, tmp_path / "x.pth")
        assert equal(read_pytorch(tmp_path / "x.pth"))
    torch.save({"net": own, "best": {name: tensor + 1 for name, tensor in own.items()}}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=r"x\.pth: entry: expected one of net, best"):
        read_pytorch(tmp_path / "x.pth")


def test_a_container_within_itself_is_read_once(tmp_path, torch):
    content = {"net": tensors(torch)}
    content["self"] = content
    torch.save(content, tmp_path / "x.pth")
    assert equal(read_tensors(tmp_path / "x.pth"), {f"net.{name}": array for name, array in TENSORS.items()})


def test_an_npz_file_is_known_by_its_content(tmp_path):
    np.savez(tmp_path / "x.npz", **TENSORS)
    (tmp_path / "x.npz").rename(tmp_path / "x.pth.tar")
    assert equal(read_pytorch(tmp_path / "x.pth.tar"))


@pytest.mark.parametrize("suffix", ["pth.tar", "npz"])
def test_a_text_in_place_of_a_checkpoint_is_called_what_it_is(tmp_path, suffix):
    path = tmp_path / f"pointer.{suffix}"
    path.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 1\n", encoding="utf-8")
    with pytest.raises(ValueError, match="got a Git LFS pointer, a text file of 126 bytes beginning with 'version"):
        read_pytorch(path)


def test_archives_of_other_things_are_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:
        for name in ("data.pkl", "code/__torch__.py", "constants.pkl"):
            archive.writestr(f"script/{name}", b"")
    with pytest.raises(ValueError, match=r"script\.pt: .* got a TorchScript archive"):
        read_pytorch(tmp_path / "script.pt")
    with zipfile.ZipFile(tmp_path / "packed.pt", "w") as archive:
        archive.writestr("weights/net.pth", b"weights")
    with pytest.raises(ValueError, match=r"got a zip archive with weights/net\.pth: unpack it first"):
        read_pytorch(tmp_path / "packed.pt")


@pytest.mark.parametrize("zipped", [True, False])
def test_damaged_files_are_refused_with_size_and_beginning(tmp_path, torch, zipped):
    torch.save(tensors(torch), tmp_path / "whole.pt", _use_new_zipfile_serialization=zipped)
    whole = (tmp_path / "whole.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="cut off") as raised:
        read_pytorch(tmp_path / "cut.pt")
    assert f"{len(whole) // 2:,} bytes" in str(raised.value)


def test_a_changed_bit_is_found_by_the_checksum_that_pytorch_does_not_look_at(tmp_path, torch):
    torch.save(tensors(torch), tmp_path / "x.pt")
    whole = bytearray((tmp_path / "x.pt").read_bytes())
    at = whole.index(TENSORS["b.weight"].tobytes())
    whole[at + 2] ^= 1
    (tmp_path / "x.pt").write_bytes(whole)
    with pytest.raises(ValueError, match=r"x\.pt: .* got one that is damaged at 'x/data/1'"):
        read_pytorch(tmp_path / "x.pt")


def test_checksums_that_were_not_written_are_not_missed(tmp_path, torch):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(tensors(torch), tmp_path / "x.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    assert equal(read_pytorch(tmp_path / "x.pt"))


def test_tensors_that_are_not_dense_are_named(tmp_path, torch):
    torch.save({"a.weight": torch.eye(3).to_sparse()}, tmp_path / "x.pt")
    with pytest.raises(ValueError, match=r"a\.weight: expected a dense tensor of numbers, got torch\.sparse"):
        read_pytorch(tmp_path / "x.pt")
