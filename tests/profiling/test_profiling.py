"""Tests of what is measured on a machine: the networks are cut out at their true size and really run."""

import dataclasses

import jax
import numpy as np
import pytest

from hadas_jax.profiling import layer_cases, network_cases, space_to_profile
from hadas_jax.spaces import ATTENTIVENAS, workload
from hadas_jax.supernet import cut_space, initialise
from hw_models import LayerKind
from hw_models.measuring import ClockSetting, Machine, format_layers, profile


@pytest.fixture(scope="module")
def cases(tiny_space):
    return network_cases(tiny_space, 6, batch=2, seed=1)


@pytest.fixture(scope="module")
def own_spaces(tiny_space):
    """The spaces of the first two of these networks alone, which are the smallest and the largest."""
    backbones = [tiny_space.decode(genome) for genome in (tiny_space.smallest_genome, tiny_space.largest_genome)]
    cut = [cut_space(tiny_space, backbone) for backbone in backbones]
    return [dataclasses.replace(space, first_exit=space.positions) for space in cut]


def test_the_layers_are_those_of_the_cut_out_space(own_spaces, cases):
    for cut, case in zip(own_spaces, cases, strict=False):
        assert cut.count == 1
        assert cut.num_exits == 0
        assert format_layers(case.table) == format_layers(jax.jit(lambda cut=cut: workload(cut, cut.largest()))())


def test_the_network_has_the_weights_that_its_layers_say(own_spaces, cases):
    for cut, case in zip(own_spaces, cases, strict=False):
        params = jax.eval_shape(lambda cut=cut: initialise(cut, jax.random.key(0)))
        leaves = jax.tree_util.tree_leaves_with_path(params.backbone)
        kernels = sum(leaf.size for path, leaf in leaves if path[-1].key not in ("scale", "bias"))
        every = sum(leaf.size for _, leaf in leaves)
        assert kernels <= np.sum(case.table.weight_elements) <= every


def test_the_network_runs_its_batch(cases):
    logits = cases[0].build()()
    (seconds,) = cases[0].start().run()
    assert 0 < seconds < 60
    assert logits.shape == (2, 3)
    assert np.all(np.isfinite(logits))
    assert np.std(logits) > 0


def test_a_larger_design_contains_a_smaller_one_of_the_same_seed(tiny_space, cases):
    large = network_cases(tiny_space, 20, batch=2, seed=1)
    for case, same in zip(cases, large, strict=False):
        assert (case.name, format_layers(case.table)) == (same.name, format_layers(same.table))
    assert len({format_layers(case.table) for case in large}) == 20


def test_designs_leave_no_gap_in_the_macs(tiny_space):
    cases = network_cases(tiny_space, 33)
    macs = np.sort(np.log([np.sum(np.asarray(case.table.macs)) for case in cases]))
    assert np.max(np.diff(macs)) < 3 * (macs[-1] - macs[0]) / 32


@pytest.mark.parametrize("count", [0, 600])
def test_a_number_of_networks_that_cannot_be_is_refused(tiny_space, count):
    with pytest.raises(ValueError, match=f"networks: expected 1 to [0-9]+, got {count}"):
        network_cases(tiny_space, count)


def test_a_batch_that_cannot_be_is_refused(tiny_space):
    with pytest.raises(ValueError, match="batch: expected 1 or more, got 0"):
        network_cases(tiny_space, 2, batch=0)


def test_a_space_is_profiled_at_its_smallest_resolution_unless_told():
    assert space_to_profile("attentivenas").resolution == (192,)
    assert space_to_profile("attentivenas", 256).resolution == (256,)
    assert ATTENTIVENAS.resolution[0] == 192
    digits = space_to_profile("digits")
    assert (digits.resolution, digits.in_channels, digits.classes) == ((8,), 1, 10)
    with pytest.raises(ValueError, match=r"resolution: expected one of 192, 224, 256, 288 .* got 200"):
        space_to_profile("attentivenas", 200)
    with pytest.raises(ValueError, match="unknown space 'none'"):
        space_to_profile("none")


def test_single_layers_write_what_their_table_says():
    found = layer_cases(4, batch=2)
    assert [case.table.kind.item() for case in found] == list(LayerKind) * 4
    assert len({case.name for case in found}) == 24
    for case in found:
        assert case.build()().size == 2 * case.table.output_elements.item()
        assert case.table.kernels.sum() == 1


@pytest.mark.parametrize("sizes", [-1, 5])
def test_a_number_of_layer_sizes_that_cannot_be_is_refused(sizes):
    with pytest.raises(ValueError, match=f"layers: expected 0 to 4 sizes of each kind, got {sizes}"):
        layer_cases(sizes)


def test_a_clock_that_cannot_be_set_is_said_before_anything_is_built(cases, tmp_path):
    machine, clocks = Machine("cpu", tmp_path / "no-sysfs"), [ClockSetting(core_mhz=1000.0)]
    with pytest.raises(ValueError, match="core_mhz: expected a clock that can be set on this machine"):
        profile(cases, tmp_path / "measurements.csv", machine=machine, clocks=clocks)
    assert list(tmp_path.iterdir()) == []
