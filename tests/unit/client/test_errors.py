from typing import Any

import grpc
import pytest

from client.errors import InferenceError


class EndedCall:
    """A failed call as gRPC hands it out."""

    def __init__(self, trailers: Any) -> None:
        self._trailers = trailers

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.RESOURCE_EXHAUSTED

    def details(self) -> str | None:
        return "full"

    def trailing_metadata(self) -> Any:
        return self._trailers


@pytest.mark.parametrize(
    ("trailers", "wait"),
    [
        pytest.param((("grpc-retry-pushback-ms", "1500"),), 1.5, id="milliseconds"),
        pytest.param((("other", "1"), ("grpc-retry-pushback-ms", "0")), 0.0, id="at once"),
        pytest.param((("grpc-retry-pushback-ms", "-1"),), -0.001, id="do not retry"),
        pytest.param((("grpc-retry-pushback-ms", "soon"),), -1.0, id="unreadable: do not retry"),
        pytest.param((), None, id="nothing said"),
        pytest.param(None, None, id="no metadata"),
    ],
)
def test_push_back(trailers: Any, wait: float | None) -> None:
    error = InferenceError.of_call(EndedCall(trailers))
    assert error.retry_after_s == wait
    assert error.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert str(error) == "RESOURCE_EXHAUSTED: full"


def test_status_of_a_stream_has_its_code() -> None:
    assert InferenceError.of_status(5, "gone", None).code is grpc.StatusCode.NOT_FOUND
    assert InferenceError.of_status(99, "odd", None).code is grpc.StatusCode.UNKNOWN
