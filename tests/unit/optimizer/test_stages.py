import sys
from pathlib import Path

import pytest

from optimizer import stages
from optimizer.errors import Unavailable
from tests.models import mlp


@pytest.mark.parametrize(("library", "extra"), [("onnx", "sklearn"), ("onnxruntime", "cpu")])
def test_a_graph_is_not_looked_into_without_what_reads_it(
    library: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(mlp())
    for name in [name for name in sys.modules if name.startswith("optimizer.passes.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "optimizer.graph_levels", raising=False)
    monkeypatch.setitem(sys.modules, library, None)
    expected = rf"'model.onnx' needs {library}, which is not installed: .*inflight\[{extra}\]"
    with pytest.raises(Unavailable, match=expected):
        stages.look(model, is_quick=False)
