import subprocess
import sys
from pathlib import Path

import pytest

from optimizer.candidate import Step
from optimizer.errors import PassError
from optimizer.passes import PASSES, apply_steps
from optimizer.passes.contract import PassInput, PassResult
from optimizer.passes.graph_facts import facts
from tests import models
from tests.unit.optimizer.passes import graphs
from tests.unit.optimizer.passes.bench import Bench, bench


def test_importing_the_package_imports_no_library() -> None:
    heavy = "onnx onnxruntime onnxslim openvino nncf torch"
    code = (
        f"import sys, optimizer.passes; print([m for m in '{heavy}'.split() if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_pass_is_found_by_its_name() -> None:
    assert len(PASSES) == 9
    for name, step in PASSES.items():
        assert step.name == name
        assert step.makes in (".onnx", ".xml")


def test_each_step_is_given_what_the_one_before_made(tmp_path: Path) -> None:
    place = bench(tmp_path, graphs.dense())
    result = apply_steps([Step("cleanup"), Step("int8_dynamic")], place.given())
    assert result.modified
    assert facts(result.file).is_quantized
    assert [folder.name for folder in place.work.iterdir()] == ["1-int8_dynamic"]


def test_modified_is_the_truth_of_all_steps(tmp_path: Path) -> None:
    place = bench(tmp_path, models.identity("INT64"))
    assert not apply_steps([Step("fp16"), Step("cleanup")], place.given()).modified
    assert not apply_steps([], place.given()).modified


def test_the_first_refusal_ends_it(tmp_path: Path) -> None:
    place = bench(tmp_path, graphs.cnn())
    with pytest.raises(PassError, match="int8_dynamic cannot be applied: 98%"):
        apply_steps([Step("cleanup"), Step("int8_dynamic")], place.given())


def test_nothing_follows_what_is_no_longer_onnx(tmp_path: Path) -> None:
    place = bench(tmp_path, graphs.cnn())
    with pytest.raises(PassError, match=r"cleanup works on ONNX, .* made 'model\.xml'"):
        apply_steps([Step("openvino_ir"), Step("cleanup")], place.given())


def test_a_pass_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(PassError, match="there is no pass 'prune', expected one of cleanup"):
        bench(tmp_path, graphs.cnn()).apply("prune")


class Careless:
    """Copies its input, after doing something to it or to the copy."""

    name = "careless"
    is_lossless = True
    needs_data = False
    makes = ".onnx"

    def __init__(self, *, writes_to_input: bool) -> None:
        self._writes_to_input = writes_to_input

    def requires(self, model: Path) -> str:
        return ""

    def apply(self, given: PassInput) -> PassResult:
        target = given.folder / "model.onnx"
        target.write_bytes(given.model.read_bytes())
        if self._writes_to_input:
            (given.model.parent / "model.onnx-inferred").touch()
        return PassResult(target, modified=True)

    def ensures(self, given: PassInput, result: PassResult) -> str:
        return "it does nothing"


@pytest.mark.parametrize(
    ("writes_to_input", "reason"),
    [(True, "it wrote to its input"), (False, "it does nothing")],
)
def test_broken_promises_are_found(writes_to_input: bool, reason: str, tmp_path: Path) -> None:
    place: Bench = bench(tmp_path, graphs.cnn())
    passes = {"careless": Careless(writes_to_input=writes_to_input)}
    with pytest.raises(PassError, match=f"careless broke its promise: {reason}"):
        apply_steps([Step("careless")], place.given(), passes)
