"""Options of `optimize` as the message that is sent."""

from typing import Any

import pytest

from client.control import optimize_request
from protos import optimization_pb2 as pb


def test_options_become_fields() -> None:
    request = optimize_request(
        "m",
        3,
        {
            "techniques": ["graph", "quantization"],
            "method": "static",
            "data_file": "rows.npz",
            "labels": "y",
            "accuracy_threshold": 0.0,
            "quick": True,
        },
    )
    assert request == pb.OptimizeRequest(
        model="m",
        version=3,
        techniques=["graph", "quantization"],
        quantization=pb.QuantizationConfig(method="static"),
        validation_dataset=pb.ValidationDataset(source="file", path="rows.npz", labels="y"),
        accuracy_threshold=0.0,
        quick=True,
    )
    assert request.HasField("accuracy_threshold")


def test_what_is_left_out_is_not_sent() -> None:
    request = optimize_request("m", None, {})
    assert request == pb.OptimizeRequest(model="m")
    query = optimize_request("m", None, {"query": "SELECT 1", "database": "d"})
    assert query.validation_dataset == pb.ValidationDataset(
        source="sql", query="SELECT 1", database="d"
    )


@pytest.mark.parametrize("options", [{"magic": 1}, {"quick": "x"}, {"data_file": 3}])
def test_unknown_options_are_refused(options: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        optimize_request("m", None, options)
