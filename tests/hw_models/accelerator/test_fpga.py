import importlib.resources

import pytest
import yaml

from hw_models.accelerator import fpga_names, load_fpga

KU115 = (importlib.resources.files("hw_models.accelerator") / "resources" / "ku115.yaml").read_text(encoding="utf-8")


@pytest.fixture
def write(tmp_path):
    """Writes the file of the KU115 with one field changed, as a.b.c; None deletes it."""

    def change(field: str, value: object):
        content = yaml.safe_load(KU115)
        *parents, last = field.split(".")
        part = content
        for name in parents:
            part = part[name]
        if value is None:
            del part[last]
        else:
            part[last] = value
        path = tmp_path / "fpga.yaml"
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        return path

    return change


@pytest.mark.parametrize("name", fpga_names())
def test_every_fpga_of_the_package_loads_under_its_name(name):
    assert load_fpga(name).name == name


def test_ku115_and_zc706_come_with_the_package():
    assert {"ku115", "zc706"} <= set(fpga_names())


def test_figures_are_converted_to_si_units(ku115):
    assert float(ku115.clock_hz) == 200e6
    assert float(ku115.ddr_bits_per_s) == pytest.approx(81.92e9)
    assert (float(ku115.dsp), float(ku115.bram18), ku115.word_bits) == (5520, 4320, 16)


def test_every_figure_says_where_it_comes_from():
    port = yaml.safe_load(KU115)["pipeline"]["weight_port"]
    assert port["provenance"] == "fitted"
    assert port["error"]["value"] == pytest.approx(0.075)


def test_a_file_of_the_users_own_is_read(write):
    assert float(load_fpga(write("resources.dsp.value", 900)).dsp) == 900


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("schema_version", 2, "schema_version: expected 1, got 2"),
        ("resources.dsp", None, "resources.dsp: expected a value, got nothing"),
        ("resources.dsp.value", 0, "resources.dsp.value: expected a number above 0, got 0"),
        ("resources.dsp.value", 1.5, "resources.dsp.value: expected a whole number, got 1.5"),
        ("resources.ddr_bandwidth.unit", "GB/s", "resources.ddr_bandwidth.unit: expected 'Gb/s', got 'GB/s'"),
        ("design.word.value", 12, "design.word.value: expected 8 or 16, got 12"),
        (
            "design.usable_dsp_share.value",
            1.5,
            "design.usable_dsp_share.value: expected a number of at most 1, got 1.5",
        ),
        ("pipeline.weight_port.value", 100, "pipeline.weight_port.value: expected a power of two, got 100"),
        ("pipeline.weight_port.error", None, "expected an 'error' beside a fitted figure"),
        ("generic.other", 1, "generic.other: expected no field of this name"),
        ("name", "KU 115", "name: expected text that matches"),
    ],
)
def test_a_wrong_file_is_refused_with_the_field_and_what_was_expected(write, field, value, message):
    with pytest.raises(ValueError, match=message):
        load_fpga(write(field, value))


def test_what_is_no_file_of_an_fpga_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"expected one of ku115, zc706, or the path of a \.yaml file, got 'vu9p'"):
        load_fpga("vu9p")
    with pytest.raises(ValueError, match=r"missing\.yaml: expected a readable file, got: No such file"):
        load_fpga(tmp_path / "missing.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [", encoding="utf-8")
    with pytest.raises(ValueError, match=r"broken\.yaml: expected YAML, got: "):
        load_fpga(broken)
    broken.write_text("- 1", encoding="utf-8")
    with pytest.raises(ValueError, match="expected a mapping of fields"):
        load_fpga(broken)
