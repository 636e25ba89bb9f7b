"""`model_warmup` of config.pbtxt: its requests, and inputs for the probes that resemble them."""

from pathlib import Path

import numpy as np
import pytest

from optimizer.example_inputs import make
from protos.signature import Signature, TensorSpec
from server.errors import LoadFailed
from server.model_config import WarmUpInput, WarmUpSample
from server.warm_up_samples import recipe_of, requests_of

SIGNATURE = Signature(
    (TensorSpec("x", "FP32", ("n", "width")), TensorSpec("ids", "INT64", ("n", "s"))), ()
)


def sample(folder: Path, content: bytes, batch_size: int = 2) -> WarmUpSample:
    (folder / "x.bin").write_bytes(content)
    inputs = {
        "x": WarmUpInput("FP32", (3,), "file", folder / "x.bin"),
        "ids": WarmUpInput("INT64", (5,), "zero"),
    }
    return WarmUpSample("first", batch_size, inputs, count=2)


def test_requests_are_what_the_sample_says(tmp_path: Path) -> None:
    data = np.arange(6, dtype=np.float32)
    first, second = requests_of(sample(tmp_path, data.tobytes()))
    assert first is second
    assert first["x"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert first["ids"].tolist() == [[0] * 5] * 2


def test_texts_and_noise_are_made() -> None:
    inputs = {
        "text": WarmUpInput("BYTES", (2,), "zero"),
        "noise": WarmUpInput("FP16", (2, 2), "random"),
    }
    (request,) = requests_of(WarmUpSample("s", 0, inputs))
    assert request["text"].tolist() == [b"", b""]
    assert request["noise"].shape == (2, 2)
    assert request["noise"].dtype == np.float16


def test_probes_get_the_samples_lengths_and_data(tmp_path: Path) -> None:
    data = np.arange(6, dtype=np.float32)
    recipe = recipe_of(sample(tmp_path, data.tobytes()), SIGNATURE)
    inputs = make(SIGNATURE, recipe, 3)
    assert inputs["x"].tolist() == [[0, 1, 2], [3, 4, 5], [0, 1, 2]]
    assert inputs["ids"].shape == (3, 5)
    assert inputs["ids"].any()


@pytest.mark.parametrize("content", [b"", b"\0" * 20])
def test_data_of_the_wrong_size_is_named(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(
        LoadFailed, match=r"model_warmup 'first': input 'x': '.*x.bin': expected 24"
    ):
        requests_of(sample(tmp_path, content))
