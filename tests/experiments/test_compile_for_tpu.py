"""Counting sequential steps in the text of a compiled program, and what a topology that there is none of says."""

import importlib.util
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

PATH = Path(__file__).parents[2] / "experiments" / "compile_for_tpu.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("compile_for_tpu", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules["compile_for_tpu"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["compile_for_tpu"]


def compiled(function, *arguments):
    return jax.jit(function).lower(*arguments).compile().as_text()


def test_trips_of_nested_loops_are_multiplied_and_others_added(script):
    def nested(x):
        inner = lambda x, _: (jnp.sin(x @ x), None)  # noqa: E731
        outer = lambda x, _: (jax.lax.scan(inner, x, None, length=5)[0] + 1.0, None)  # noqa: E731
        x = jax.lax.scan(outer, x, None, length=7)[0]
        return jax.lax.fori_loop(0, 11, lambda _, x: jnp.cos(x @ x), x)

    assert script.sequential_steps(compiled(nested, jnp.ones((3, 3)))) == (5 * 7 + 11, ())


def test_a_loop_that_ends_by_its_values_counts_once_and_is_named(script):
    def until(x):
        return jax.lax.while_loop(lambda x: jnp.max(x) < 9.0, lambda x: x * 2.0, x)

    steps, names = script.sequential_steps(compiled(until, jnp.ones(3)))
    assert steps == 1
    assert len(names) == 1
    assert "while" in names[0]


def test_every_program_can_be_traced_and_has_a_name_of_its_own(script):
    names = list(script.programs())
    assert len(names) == len(set(names)) > 40
    program = script.programs()["NSGA2 tell, 1,024"]()
    state, metrics = jax.eval_shape(program.function, *program.rows, *program.shared)
    assert state.population.shape == (1024, 31)
    assert metrics["front_size"].shape == ()


def test_without_a_compiler_or_with_an_unknown_topology_one_line_says_so(script):
    with pytest.raises(ValueError, match=r"topology: expected one that libtpu compiles for, .*, got v0:9x9") as caught:
        script.chips("v0:9x9")
    assert "\n" not in str(caught.value)
