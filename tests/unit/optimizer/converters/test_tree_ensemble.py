from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from optimizer.converters.tree_ensemble import Ending, Ensemble, Split, Trees, ensemble_model
from protos.tensors import Array


def run(ensemble: Ensemble, rows: Array) -> dict[str, Array]:
    model = ensemble_model(ensemble, 17)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"X": rows}), strict=True))


def stump(threshold: float, low: float, high: float, *, mode: str = "BRANCH_LEQ") -> Trees:
    trees = Trees()
    trees.split(0, 0, Split(0, threshold, 1, 2, missing_then=False, mode=mode))
    trees.leaf(0, 1, (0, low))
    trees.leaf(0, 2, (0, high))
    return trees


def test_float32_falls_on_the_side_of_the_float64_threshold() -> None:
    threshold = 0.1  # float32(0.1) is above it
    near = np.float32(threshold)
    rows = np.array(
        [[np.nextafter(near, np.float32(0))], [near], [np.nextafter(near, np.float32(1))]]
    )
    outputs = run(Ensemble(stump(threshold, 1.0, 2.0), 1, (0.0,), "identity"), rows)
    assert (
        outputs["prediction"].tolist()
        == np.where(rows[:, 0].astype(float) <= threshold, 1.0, 2.0).tolist()
    )
    assert outputs["prediction"].tolist() == [1.0, 2.0, 2.0]


def test_float64_keeps_its_thresholds() -> None:
    rows = np.array([[0.1], [np.nextafter(0.1, 1.0)]])
    ensemble = Ensemble(stump(0.1, 1.0, 2.0), 1, (0.0,), "identity", is_double=True)
    assert run(ensemble, rows)["prediction"].tolist() == [1.0, 2.0]


def test_missing_values_take_their_way() -> None:
    rows = np.array([[np.nan]], np.float32)
    for missing_then, expected in ((True, 1.0), (False, 2.0)):
        trees = Trees()
        trees.split(0, 0, Split(0, 0.5, 1, 2, missing_then))
        trees.leaf(0, 1, (0, 1.0))
        trees.leaf(0, 2, (0, 2.0))
        assert run(Ensemble(trees, 1, (0.0,), "identity"), rows)["prediction"] == [expected]


@pytest.mark.parametrize("leaves", [(-1.0, 1.0), (0.1, 0.3), (0.0, 2.0)])
@pytest.mark.parametrize("base", [0.0, 0.2, -0.2])
def test_label_of_two_classes_follows_the_probability(
    leaves: tuple[float, float], base: float
) -> None:
    # Also where no leaf is negative, which the operator would take for probabilities.
    labels = np.array([3, 5])
    ensemble = Ensemble(stump(0.5, *leaves), 1, (base,), "softmax", labels)
    outputs = run(ensemble, np.array([[0.0], [1.0]], np.float32))
    second = 1 / (1 + np.exp(-(np.array(leaves) + base)))
    assert outputs["probabilities"][:, 1] == pytest.approx(second, abs=1e-6)
    assert outputs["label"].tolist() == np.where(second > 0.5, 5, 3).tolist()


@pytest.mark.parametrize(
    ("ending", "expected"),
    [
        ("identity", [-2.0, 3.0]),
        ("sigmoid", [1 / (1 + np.exp(2.0)), 1 / (1 + np.exp(-3.0))]),
        ("exp", [np.exp(-2.0), np.exp(3.0)]),
        ("signed_square", [-4.0, 9.0]),
        ("positive", [0.0, 1.0]),
    ],
)
def test_endings(ending: Ending, expected: list[float]) -> None:
    ensemble = Ensemble(stump(0.5, -2.0, 3.0), 1, (0.0,), ending)
    outputs = run(ensemble, np.array([[0.0], [1.0]], np.float32))
    assert outputs["prediction"] == pytest.approx(expected, rel=1e-5)


def test_text_labels() -> None:
    labels = np.array([b"no", b"ja"], dtype=object)
    ensemble = Ensemble(stump(0.5, 0.25, 0.75), 1, (0.0,), "shares", labels)
    outputs = run(ensemble, np.array([[0.0], [1.0]], np.float32))
    assert outputs["label"].tolist() == ["no", "ja"]
    assert outputs["probabilities"] == pytest.approx(np.array([[0.75, 0.25], [0.25, 0.75]]))


@pytest.mark.parametrize("categories", [[], [2.0], [0.0, 3.0, 40.0]])
def test_member_asks_for_each_category(categories: list[float]) -> None:
    trees = Trees()
    split = Split(0, 0.0, 1, 2, missing_then=True)
    free = trees.member(0, 0, split, categories, free_node=3)
    trees.leaf(0, 1, (0, 1.0))
    trees.leaf(0, 2, (0, 2.0))
    assert free == 3 + max(0, len(categories) - 1)
    rows = np.array([[0.0], [1.0], [2.0], [3.0], [40.0], [41.0], [np.nan]], np.float32)
    outputs = run(Ensemble(trees, 1, (0.0,), "identity"), rows)
    inside = [value in categories or np.isnan(value) for value in rows[:, 0].tolist()]
    assert outputs["prediction"].tolist() == [1.0 if found else 2.0 for found in inside]


def test_model_has_the_opset_asked_for(tmp_path: Path) -> None:
    model = ensemble_model(Ensemble(stump(0.5, 1.0, 2.0), 1, (0.0,), "identity"), 13)
    assert {entry.domain: entry.version for entry in model.opset_import} == {
        "": 13,
        "ai.onnx.ml": 3,
    }
