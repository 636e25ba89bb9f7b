"""Which requests an engine gets, and what is said of the others."""

import logging

import numpy as np
import pytest

from optimizer.shape_profile import ShapeProfile, ShapeRange
from protos.tensors import Array
from server.backends.profiled import ProfiledBackend
from tests.fakes import FakeBackend

PROFILE = ShapeProfile({"x": ShapeRange((1, 2), (4, 2), (4, 2))})


@pytest.fixture
def backend() -> ProfiledBackend:
    return ProfiledBackend(FakeBackend(), FakeBackend(), PROFILE)


def batches(backend: ProfiledBackend) -> tuple[list[int], list[int]]:
    engine, baseline = backend.engine, backend.baseline
    assert isinstance(engine, FakeBackend)
    assert isinstance(baseline, FakeBackend)
    return engine.batches, baseline.batches


def x(rows: int, width: int = 2) -> dict[str, Array]:
    return {"x": np.ones((rows, width), np.float32)}


def test_shapes_in_the_profile_go_to_the_engine_and_others_to_the_baseline(
    backend: ProfiledBackend,
) -> None:
    for rows in (1, 4, 5, 3, 8):
        assert len(backend.run(x(rows), ["y"])[0]) == rows
    assert batches(backend) == ([1, 4, 3], [5, 8])
    assert backend.runs_elsewhere == 2


def test_each_shape_is_told_once(
    backend: ProfiledBackend, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for rows in (5, 5, 6, 5, 2):
        backend.run(x(rows), ["y"])
    begin = "'fake-1' runs without its TensorRT engine, on cpu: input 'x': "
    assert [record.getMessage() for record in caplog.records] == [
        begin + "5 in dimension 0, the engine is for 1 to 4",
        begin + "6 in dimension 0, the engine is for 1 to 4",
    ]
    backend.close()
    assert caplog.records[-1].getMessage() == "'fake-1': 4 runs were not on its engine"


def test_the_log_has_an_end(backend: ProfiledBackend, caplog: pytest.LogCaptureFixture) -> None:
    for rows in range(5, 155):
        backend.run(x(rows), ["y"])
    assert len(caplog.records) == 100
    assert backend.runs_elsewhere == 150


def test_an_input_that_the_engine_has_as_a_constant_goes_to_the_baseline(
    backend: ProfiledBackend, caplog: pytest.LogCaptureFixture
) -> None:
    backend.run({**x(1), "scale": np.ones(1, np.float32)}, ["y"])
    assert batches(backend) == ([], [1])
    assert "input 'scale' is a constant of the engine" in caplog.text


def test_all_are_interrupted_and_closed(backend: ProfiledBackend) -> None:
    backend.interrupt(7)
    backend.close()
    for one in (backend.engine, backend.baseline):
        assert isinstance(one, FakeBackend)
        assert one.interrupted == [7]
        assert one.is_closed
