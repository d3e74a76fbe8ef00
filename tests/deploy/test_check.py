"""Tests of a front set beside measurements: which networks, what agrees, and whose measurements are taken."""

import dataclasses

import numpy as np
import pytest

from hadas_jax.deploy import check
from hadas_jax.deploy.check import (
    Agreement,
    Chosen,
    EndToEnd,
    choose,
    compare,
    read_check,
    recall_kit,
    remember_kit,
    write_check,
)
from hadas_jax.deploy.kit import layers_by_segment
from hadas_jax.deploy.operating_points import ExitCosts
from hadas_jax.deploy.select import SearchedSupernet
from hadas_jax.report.check import plot_check, summary
from hw_models import load_device, read_device_file, write_device_file
from hw_models.measuring import Measurement
from hw_models.schema import Runtime

DEVICE = "x86-cpu"


@pytest.fixture(scope="module")
def chosen(found):
    return choose(found, 3)


@pytest.fixture(scope="module")
def rows(found, chosen):
    """Measurements as the device says: the first time a tenth more, the second a tenth less."""
    space, device = SearchedSupernet.of(found).space, load_device(DEVICE)
    pairs = [(one.design.genome, one.design.exits) for one in chosen]
    rows = []
    for one, cost in zip(chosen, ExitCosts.of_networks(pairs, space=space, device=device), strict=True):
        texts = layers_by_segment(space, one.design.genome, one.design.exits)
        for again, factor in (("", 1.1), ("-again", 0.9)):
            rows += [
                Measurement(
                    network=f"{one.name}{again}/{k + 1}",
                    layers=";".join(texts[: k + 1]),
                    family=one.name,
                    segments=k + 1,
                    latency_ms=1e3 * factor * cost.latency_s[k, -1],
                    machine="a board",
                    kit="0123456789ab",
                )
                for k in range(len(texts))
            ]
    return rows


def compared(found, chosen, rows, **options):
    return compare(found, chosen, rows, **{"device": DEVICE, "protocol": {"rounds": 3}, **options})


def test_networks_spread_over_the_front_with_different_backbones_first(found):
    front = found.result.front("deployable")
    every = choose(found, 100)
    assert len(every) == len({(design.genome, design.exits) for design in front})
    some = choose(found, 2)
    assert len({one.design.genome for one in some}) == min(2, len({design.genome for design in front}))
    latencies = [one.design.test["deployable"].latency_s for one in every]
    assert latencies == sorted(latencies)
    assert [one.name for one in every[:2]] == ["front-000", "front-001"]
    with pytest.raises(ValueError, match="networks: expected 1 or more, got 0"):
        choose(found, 0)


def test_measurements_as_predicted_agree_and_twice_the_latency_does_not(found, chosen, rows, tmp_path):
    same = compared(found, chosen, rows)
    assert same.exits.error < 1e-5
    assert same.expected.error < 1e-5
    assert same.noise == pytest.approx(0.2, rel=1e-4)
    assert same.hypervolume == pytest.approx(1, abs=1e-4)
    assert same.front == same.measured_front
    assert same.energy is None
    assert (same.is_within, same.exit_code) == (True, 0)
    assert same.protocol["machine"] == "a board"
    slow = [row.model_copy(update={"latency_ms": 2 * row.latency_ms}) for row in rows]
    other = compared(found, chosen, slow)
    assert other.exits.error == pytest.approx(0.5, rel=1e-4)
    assert other.exits.bias == pytest.approx(-0.5, rel=1e-4)
    assert other.exits.unbiased < 1e-5
    assert other.exits.tau == pytest.approx(same.exits.tau)
    assert other.hypervolume < 1
    assert (other.is_within, other.exit_code) == (False, 1)
    write_check(tmp_path / "check.json", same, rows)
    assert read_check(tmp_path / "check.json") == dataclasses.replace(same)
    plot_check(same, tmp_path / "check.png")
    assert (tmp_path / "check.png").read_bytes().startswith(b"\x89PNG")
    assert any("Both mean errors are within the tolerance of 10%" in line for line in summary(same))


def test_a_machine_that_is_slower_than_when_its_device_was_measured_is_known_by_single_layers(
    found, chosen, rows, tmp_path
):
    layers = {f"layer-dense-{side}-16": side / 100 for side in (8, 16, 32)}
    runtime = Runtime(name="onnxruntime", version="1.0")
    file = read_device_file(DEVICE).model_copy(update={"runtime": runtime, "yardsticks_ms": layers})
    write_device_file(tmp_path / "mine.yaml", file)
    own = [row.model_copy(update={"runtime": "onnxruntime"}) for row in rows]
    own += [Measurement(network=name, layers="dense 9 9 9 9 1", latency_ms=ms) for name, ms in layers.items()]
    slow = [row.model_copy(update={"latency_ms": 1.5 * row.latency_ms}) for row in own]
    result = compared(found, chosen, slow, device=str(tmp_path / "mine.yaml"))
    assert result.speed == pytest.approx(1.5)
    assert result.exits.bias == pytest.approx(-1 / 3, rel=1e-4)
    assert result.exits_at_speed.error < 1e-5
    assert result.expected_at_speed.error < 1e-5
    assert result.hypervolume == pytest.approx(1, abs=1e-4)
    assert result.is_within
    assert any("took 1.500 times as long" in line for line in summary(result))
    write_check(tmp_path / "check.json", result, slow)
    assert read_check(tmp_path / "check.json") == result
    for other in (
        compared(found, chosen, slow),  # a device that was measured otherwise
        compared(found, chosen, slow[:-1], device=str(tmp_path / "mine.yaml")),
        compared(
            found,
            chosen,
            [row.model_copy(update={"core_mhz": 2800.0}) for row in slow],
            device=str(tmp_path / "mine.yaml"),
        ),
    ):
        assert (other.speed, other.exits_at_speed, other.is_within) == (None, None, False)


def test_the_expected_latency_end_to_end_counts_where_it_was_measured(found, chosen, rows):
    by_paths = compared(found, chosen, rows)
    assert by_paths.by_clock is None
    latencies = {each.name: EndToEnd(2 * each.predicted_s, 4 * each.predicted_s) for each in by_paths.networks}
    end_to_end = compared(found, chosen, rows, end_to_end=latencies)
    assert end_to_end.expected.error == pytest.approx(0.5, rel=1e-4)
    assert end_to_end.by_clock.error == pytest.approx(0.75, rel=1e-4)
    assert any("by the clock" in line for line in summary(end_to_end))
    assert end_to_end.exits == by_paths.exits
    assert end_to_end.exit_code == 1


def test_energy_counts_where_power_was_measured(found, chosen, rows):
    powered = [row.model_copy(update={"power_w": 10.0}) for row in rows]
    energy = compared(found, chosen, powered).energy
    assert energy.count == sum(len(one.design.exits) + 1 for one in chosen)


def test_a_disturbed_network_is_left_out_and_named(found, chosen, rows):
    gone = chosen[0].name
    left = compared(found, chosen, [row for row in rows if row.network not in (f"{gone}/1", f"{gone}-again/1")])
    assert left.left_out == (gone,)
    assert gone not in {network.name for network in left.networks}
    assert any(gone in line and "disturbed" in line for line in summary(left))
    once = compared(found, chosen, [row for row in rows if "-again" not in row.network])
    assert once.noise is None
    with pytest.raises(ValueError, match="expected rows of front-000/1 and so on, got none"):
        compared(found, chosen, [rows[0].model_copy(update={"network": "other"})])


def test_rows_of_other_layers_are_refused(found, chosen, rows):
    other = [row.model_copy(update={"layers": "dense 1 2 3 4 1"}) for row in rows]
    with pytest.raises(ValueError, match="front-000: expected the layers of this network of the front, got others"):
        compared(found, chosen, other)


def test_a_kits_measurements_are_known_by_its_digest(found, chosen, rows, tmp_path):
    search = dataclasses.replace(found, path=tmp_path)
    with pytest.raises(ValueError, match=r"m.csv: expected measurements of a kit of .* \(none yet\), got 0123456789ab"):
        recall_kit(search, rows, source="m.csv")
    remember_kit(tmp_path, "0123456789ab", chosen)
    assert recall_kit(search, rows, source="m.csv") == list(chosen)
    for other, message in (
        ({"kit": "ba9876543210"}, r"expected measurements of a kit of .* \(0123456789ab\), got ba9876543210"),
        ({"kit": None}, r"expected measurements of a kit of .* \(0123456789ab\), got none"),
    ):
        with pytest.raises(ValueError, match=message):
            recall_kit(search, [row.model_copy(update=other) for row in rows], source="m.csv")
    two = r"expected measurements of one kit \(column kit\), got 0123456789ab, ba9876543210"
    with pytest.raises(ValueError, match=two):
        recall_kit(search, [rows[0], rows[1].model_copy(update={"kit": "ba9876543210"})], source="m.csv")
    moved = dataclasses.replace(chosen[0].design, genome=(99,))
    remember_kit(tmp_path, "0123456789ab", [Chosen("front-000", moved)])
    with pytest.raises(ValueError, match="got those of an earlier front"):
        recall_kit(search, rows, source="m.csv")


def test_agreement_counts_pairs_and_ignores_ties_of_what_was_measured():
    found = Agreement.of([1.0, 2.0, 4.0], [1.0, 4.0, 2.0])
    assert found.error == pytest.approx(np.mean([0, 0.5, 1]))
    assert found.ordered == pytest.approx(2 / 3)
    assert found.tau == pytest.approx(1 / 3)
    assert found.ordered_apart is None
    noisy = Agreement.of([1.0, 2.0, 4.0, 4.1], [1.0, 4.0, 2.0, 1.9], noise=0.1)
    assert noisy.ordered == pytest.approx(3 / 6)
    assert noisy.ordered_apart == pytest.approx(3 / 5)
    assert Agreement.of([1.0, 2.0], [3.0, 3.0]).ordered is None
    assert Agreement.of([1.0], [2.0]).tau is None


def test_latency_on_images_is_counted_in_runs_of_a_reference_whatever_the_speed_of_the_machine(monkeypatch):
    class Drifting:
        """A machine that is slower by a hundredth after every run, and a reference of 2 ms on it."""

        now, slow = 0.0, 1.0

        def run(self, seconds=2e-3):
            Drifting.slow *= 1.01
            Drifting.now += Drifting.slow * seconds
            return (Drifting.slow * seconds,)

    machine = Drifting()
    monkeypatch.setattr(check.time, "perf_counter", lambda: Drifting.now)
    images = np.zeros((60, 8, 8, 1), np.uint8)
    paced, clock = check._times(lambda _: machine.run(1e-3), images, check.Reference(machine.run, 2e-3))
    assert clock[-1] > 1.5 * clock[0]
    np.testing.assert_allclose(paced, 1e-3, rtol=0.35)
    np.testing.assert_allclose(np.median(paced), 1.15e-3, rtol=0.05)  # half a turn after its reference
    assert clock.shape == paced.shape == (60,)


@pytest.mark.slow
def test_networks_are_measured_here_by_their_paths_and_on_images(found, chosen, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(check, "_PASSES", 1)
    named, images = check.cut_out(found, chosen[:2], tmp_path)
    rows, latencies = check.measure_here(named, np.asarray(images.images[:20]), tmp_path, rounds=1)
    assert len(rows) == 2 * sum(len(one.design.exits) + 1 for one in chosen[:2]) + 6
    assert {row.runtime for row in rows} == {"onnxruntime"}
    assert set(latencies) == {"front-000", "front-001"}
    assert all(value > 0 for latency in latencies.values() for value in latency)
    result = compare(found, chosen[:2], rows, device=DEVICE, end_to_end=latencies, protocol={})
    assert 0 < result.networks[0].exits[0].measured_s <= result.networks[0].exits[-1].measured_s
