"""The bare model runs where it is told to, or not at all."""

import numpy as np
import onnxruntime
import pytest

from loadtests.floor import Floor, NoSuchDevice
from loadtests.models import tiny

ROW = {"x": np.zeros((1, 16), np.float32)}


def test_the_best_layout_uses_every_core() -> None:
    layout, rows_per_s = Floor(tiny(), ROW, cores=2).best((1, 4), duration_s=0)
    assert layout.threads * layout.callers == 2
    assert layout.batch in (1, 4)
    assert rows_per_s > 0


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="CUDA is built in"
)
def test_a_floor_on_another_device_is_no_floor() -> None:
    with pytest.raises(NoSuchDevice, match="cuda:0: this onnxruntime is built without CUDA"):
        Floor(tiny(), ROW, cores=2, device="cuda:0")
