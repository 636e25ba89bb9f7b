import json
from collections.abc import Mapping

import ml_dtypes
import numpy as np
import pytest

from protos import models_pb2 as pb
from protos.tensors import Array
from server.commands.predict import rows_per_request, to_json


def version(*shape: int, batching: bool = True) -> pb.ModelVersion:
    return pb.ModelVersion(
        inputs=[pb.TensorInfo(name="x", datatype="FP32", shape=shape)],
        batching=pb.Batching(enabled=batching),
    )


def inputs(*shape: int) -> Mapping[str, Array]:
    return {"x": np.zeros(shape, np.float32)}


@pytest.mark.parametrize(
    ("model", "data", "rows"),
    [
        pytest.param(version(-1, 4), inputs(100_000, 4), 1024, id="small rows"),
        pytest.param(version(-1, 150_528), inputs(64, 150_528), 6, id="large rows by their bytes"),
        pytest.param(version(-1, 4, batching=False), inputs(9, 4), 0, id="rows may depend"),
        pytest.param(version(1, 4, batching=False), inputs(9, 4), 1, id="fixed batch of the model"),
    ],
)
def test_rows_per_request(model: pb.ModelVersion, data: Mapping[str, Array], rows: int) -> None:
    assert rows_per_request(model, data) == rows


def test_json_has_as_many_digits_as_the_type() -> None:
    outputs: dict[str, Array] = {
        "half": np.array([0.1], np.float16),
        "single": np.array([[0.1, -2.5e-8]], np.float32),
        "double": np.array([0.1], np.float64),
        "brain": np.array([0.5], ml_dtypes.bfloat16),
        "label": np.array([7, 8]),
        "text": np.array([b"gr\xc3\xbcn"], dtype=object),
    }
    assert json.loads(to_json(outputs)) == {
        "half": [0.1],
        "single": [[0.1, -2.5e-8]],
        "double": [0.1],
        "brain": [0.5],
        "label": [7, 8],
        "text": ["grün"],
    }


def test_json_has_null_for_what_json_lacks() -> None:
    text = to_json({"y": np.array([np.nan, np.inf, 1.0], np.float32)})
    assert text == '{"y": [null, null, 1.0]}'
