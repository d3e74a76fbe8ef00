import dataclasses
import json

import jax
import numpy as np
import pytest

from hadas_jax.spaces.darts import sample_codes
from hadas_jax.spaces.darts_costs import PricedNetworks
from hadas_jax.spaces.darts_network import DartsNetwork


@pytest.fixture(scope="module")
def priced():
    codes = np.asarray(sample_codes(jax.random.key(0), 6))
    columns = {"generic": np.arange(6, dtype=np.float32), "pipeline": np.ones(6, np.float32)}
    return PricedNetworks(codes, columns, DartsNetwork(channels=18), "zc706", "fitted", {"seed": 3})


@pytest.mark.parametrize("paradigms", [("generic", "pipeline"), ("pipeline",)])
def test_a_data_set_is_read_as_it_was_written(paradigms, priced, tmp_path):
    written = dataclasses.replace(priced, throughputs={name: priced.throughputs[name] for name in paradigms})
    written.write(tmp_path / "d.npz")
    found = PricedNetworks.read(tmp_path / "d.npz")
    np.testing.assert_array_equal(found.codes, priced.codes)
    assert tuple(found.throughputs) == paradigms
    assert all(np.array_equal(found.throughputs[name], priced.throughputs[name]) for name in paradigms)
    rest = ("network", "fpga", "table", "details")
    assert [getattr(found, name) for name in rest] == [getattr(priced, name) for name in rest]
    assert [path.name for path in tmp_path.iterdir()] == ["d.npz"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: {"x": a["codes"]}, "expected a data set of hadas dnas sample"),
        (lambda a: a | {"metadata": np.array(json.dumps({"form": "other/1"}))}, "expected a data set"),
        (lambda a: a | {"codes": a["codes"].astype(int)}, r"codes: expected int8\[N, 28\], got int64\[6, 28\]"),
        (lambda a: a | {"codes": a["codes"][:0]}, r"codes: expected int8\[N, 28\], got int8\[0, 28\]"),
        (lambda a: a | {"codes": 0 * a["codes"]}, "codes: expected networks alone, got another code in row 0"),
        (lambda a: {k: a[k] for k in ("codes", "metadata")}, "expected throughputs of generic or pipeline, got none"),
        (
            lambda a: a | {"generic_throughput": np.ones(5, np.float32)},
            r"generic_throughput: expected float32\[6\], got float32\[5\]",
        ),
        (
            lambda a: a | {"generic_throughput": np.full(6, -1, np.float32)},
            "generic_throughput: expected numbers of at least 0",
        ),
    ],
)
def test_another_file_is_refused(change, message, priced, tmp_path):
    path = tmp_path / "d.npz"
    priced.write(path)
    with np.load(path) as content:
        arrays = dict(content)
    np.savez(path, **change(arrays))
    with pytest.raises(ValueError, match=message):
        PricedNetworks.read(path)


def test_missing_and_damaged_files_are_refused(priced, tmp_path):
    with pytest.raises(ValueError, match="got no file"):
        PricedNetworks.read(tmp_path / "none.npz")
    (tmp_path / "d.npz").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="cannot read it"):
        PricedNetworks.read(tmp_path / "d.npz")
    with pytest.raises(ValueError, match="expected a file that can be written"):
        priced.write(tmp_path / "none" / "d.npz")
