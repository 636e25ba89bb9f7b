import subprocess
import sys
from pathlib import Path

import pytest

from optimizer.errors import SourceError, Unavailable
from optimizer.extras import needed_by
from optimizer.frameworks import load_native, save_native
from optimizer.source import SourceModel

HEAVY = {"torch", "tensorflow", "sklearn", "xgboost", "lightgbm", "onnx", "openvino", "pandas"}


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    program = "import optimizer.frameworks, optimizer.converters, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert not HEAVY & set(done.stdout.decode().split())


def test_onnx_has_no_form_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="a model of onnx has no form of its own"):
        load_native(SourceModel(tmp_path / "model.onnx", "onnx"))


def test_object_of_no_framework_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="dict is no model, expected a fitted scikit-learn"):
        save_native({}, tmp_path)


def test_missing_framework_names_the_extra_to_install() -> None:
    expected = (
        "'m.keras' needs tensorflow_of_another_name, which is not installed: "
        r"pip install 'inflight\[tensorflow\]'"
    )
    with pytest.raises(Unavailable, match=expected), needed_by("'m.keras'", "tensorflow"):
        import tensorflow_of_another_name  # type: ignore[import-not-found]  # noqa: F401


def test_missing_module_of_our_own_is_a_bug_and_stays_one() -> None:
    with pytest.raises(ModuleNotFoundError), needed_by("'m.pt2'", "torch"):
        import optimizer.missing  # type: ignore[import-not-found]  # noqa: F401
