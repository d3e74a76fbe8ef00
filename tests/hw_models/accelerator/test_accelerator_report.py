import dataclasses
import io

import jax.numpy as jnp
import pytest
from rich.console import Console

from hw_models.accelerator import (
    FpgaTooSmallError,
    generic_cost,
    generic_report,
    load_fpga,
    pipeline_cost,
    pipeline_report,
    report_table,
)


def drawn(report, *, width=200, **options) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(report_table(report, **options))
    return console.file.getvalue()


@pytest.fixture(scope="module")
def pipeline(rows, darts_v2, ku115):
    return pipeline_report(rows, darts_v2, ku115)


@pytest.fixture(scope="module")
def generic(rows, darts_v2, ku115):
    return generic_report(rows, darts_v2, ku115)


def test_no_figure_is_cut_off_on_eighty_columns(pipeline, generic):
    for report in (pipeline, generic):
        assert "…" not in drawn(report, width=80)


def test_the_rows_of_a_pipeline_add_up_to_what_it_takes(pipeline, rows, darts_v2, ku115):
    cost = pipeline_cost(rows, darts_v2, ku115)
    assert pipeline.throughput == float(cost.throughput)
    assert sum(row.bram18 for row in pipeline.rows) == pipeline.bram18 == int(cost.bram18)
    weighted = sum(row.layers for row in pipeline.rows if "pool" not in row.name)
    pooling = sum(row.layers for row in pipeline.rows) - weighted
    assert sum(row.dsp for row in pipeline.rows) + 6 * weighted + 2 * pooling == pipeline.dsp
    assert pipeline.dsp <= pipeline.usable_dsp
    assert pipeline.bram18 <= pipeline.usable_bram18


def test_the_bottleneck_of_a_pipeline_is_its_slowest_stage_and_the_reason_names_it(pipeline):
    worst = pipeline.bottleneck
    assert worst.cycles == max(row.cycles for row in pipeline.rows if "pool" not in row.name)
    assert worst.share == 1
    assert worst.cycles == worst.macs / (worst.channels * worst.kernels)
    assert pipeline.reason.startswith(f"{worst.name} is slowest")
    assert f"allow {pipeline.batch} images side by side" in pipeline.reason


def test_the_reason_names_the_resource_that_limits_the_batch(rows, darts_v2, ku115):
    few_dsps = dataclasses.replace(ku115, dsp=jnp.float32(2500))
    few_blocks = dataclasses.replace(ku115, bram18=jnp.float32(2000))
    assert "DSPs allow" in pipeline_report(rows, darts_v2, few_dsps).reason
    assert "Memory blocks allow" in pipeline_report(rows, darts_v2, few_blocks).reason


def test_halved_parallelism_is_said(rows, darts_v2, ku115):
    small = dataclasses.replace(ku115, dsp=jnp.float32(1250))
    assert "Parallelism was halved" in pipeline_report(rows, darts_v2, small).reason


def test_shares_of_the_generic_engine_add_up_and_the_largest_is_the_bottleneck(generic, rows, darts_v2, ku115):
    assert sum(row.share for row in generic.rows) == pytest.approx(1)
    assert generic.bottleneck.share == max(row.share for row in generic.rows)
    assert generic.throughput == pytest.approx(float(generic_cost(rows, darts_v2, ku115).throughput), rel=1e-6)
    assert "bound by multiplying" in generic.reason or "bound by moving activations" in generic.reason


def test_a_table_shows_the_figures_and_the_reason(pipeline, generic):
    for report in (pipeline, generic):
        text = " ".join(drawn(report).split())
        assert f"{report.throughput:,.0f} images/s" in text
        assert report.bottleneck.name in text
        assert report.reason.split(".")[0][:40] in text


def test_a_table_can_be_cut_to_the_rows_that_take_longest(generic):
    assert len(drawn(generic, most_rows=3).splitlines()) < len(drawn(generic).splitlines()) - 20
    assert generic.bottleneck.name in drawn(generic, most_rows=1)


def test_a_network_too_large_is_refused_by_resource(rows, darts_v2):
    with pytest.raises(FpgaTooSmallError, match=r"zc706: expected at least .* usable DSPs"):
        pipeline_report(rows, darts_v2, load_fpga("zc706"))
