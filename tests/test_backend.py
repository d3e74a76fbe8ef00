import numpy as np
import pytest

from hadas_jax import backend
from hadas_jax.backend import RowMap, connect, gather_json, is_first, require_same, share_json


def test_rows_of_any_number_are_mapped_in_blocks_of_one_shape():
    shapes = []

    def function(rows, shared):
        shapes.append(rows["x"].shape)
        return {"sum": rows["x"].sum(axis=1) + shared["bias"], "double": 2 * rows["x"]}

    spread = RowMap(function, block=3)
    for count in (1, 3, 4, 7):
        x = np.arange(2.0 * count, dtype=np.float32).reshape(count, 2)
        found = spread({"x": x}, {"bias": np.float32(5)})
        np.testing.assert_array_equal(found["sum"], x.sum(axis=1) + 5)
        np.testing.assert_array_equal(found["double"], 2 * x)
    assert shapes == [(3, 2)]


def test_what_is_placed_once_is_not_copied_again():
    spread = RowMap(lambda rows, shared: rows + shared, block=2)
    placed = spread.place(np.float32(3))
    assert spread.place(placed) is placed
    np.testing.assert_array_equal(spread(np.zeros(3, np.float32), placed), np.full(3, 3.0))


def test_an_error_of_the_function_is_not_taken_for_a_lost_process():
    def function(rows, shared):
        raise TypeError("connection closed, says the function")

    with pytest.raises(TypeError, match="says the function"):
        RowMap(function)(np.zeros(1), ())


def test_alone_every_value_is_shared_as_it_is():
    value = {"a": [1, "x"]}
    assert share_json(value) is value
    assert gather_json(value) == [value]
    assert is_first()


def test_processes_that_differ_are_named_with_what_differs(monkeypatch):
    every = [{"batch": 64, "seed": 0}, {"batch": 64, "seed": 0}, {"batch": 64, "seed": 1}]
    monkeypatch.setattr(backend, "gather_json", lambda value: every)
    with pytest.raises(
        ValueError, match="settings: expected the same in all processes, got seed 0 in process 0 and 1 in process 2"
    ):
        require_same("settings", every[0])
    every[2]["seed"] = 0
    require_same("settings", every[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("127.0.0.1:1234", None, None), "num_processes: expected with the other two"),
        ((None, 2, 0), "coordinator: expected with the other two"),
        (("127.0.0.1", 2, 0), "coordinator: expected HOST:PORT or auto, got '127.0.0.1'"),
        (("127.0.0.1:1234", 2, 2), "process_id: expected 0 to 1 of `num_processes` 2, got 2"),
    ],
)
def test_incomplete_or_impossible_processes_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        connect(*arguments)


def test_without_arguments_there_is_one_process():
    connect(None, None, None)
    assert is_first()
