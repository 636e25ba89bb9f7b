"""Candidates that are very fast and not right: none of them is ever chosen.

Whole jobs, without child processes. Planted models are functions; the original is a hundred times
slower than its candidate, so whatever passes the gate wins. Beside each trap stands what is so
nearly the same that it has to win: a gate that refuses everything is none.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from optimizer import plan, race, stage
from optimizer.artifact import Artifact
from optimizer.candidate import Candidate, Outcome, State, Step
from optimizer.errors import DataError
from optimizer.goal import Goal
from optimizer.pipeline import optimize
from optimizer.report import Report
from optimizer.runner import Opener
from optimizer.samples import Samples
from optimizer.source import source_of
from optimizer.store import ArtifactStore
from protos.signature import Signature, TensorSpec
from protos.tensors import Array
from server.backends.opener import open_artifact
from tests.models import build, random_noise, tensor

Outputs = dict[str, Array]
Function = Callable[[Mapping[str, Array]], Outputs]

GOAL = Goal(
    is_quick=True, benchmark_s=0.1, iterations=12, warmup_iterations=1, max_batch=1, threads=1
)
ROWS, CLASSES = 400, 5
RANDOM = np.random.default_rng(7)
X = RANDOM.standard_normal((ROWS, 6)).astype(np.float32)
WEIGHTS = RANDOM.standard_normal((6, CLASSES)).astype(np.float32)
FLOATS: tuple[TensorSpec, ...] = (TensorSpec("x", "FP32", ("n", 6)),)


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(function: Callable[..., Any], *arguments: Any, **_: Any) -> Any:
        return function(*arguments)

    monkeypatch.setattr(stage, "run", run)
    monkeypatch.setattr(race, "_PAUSE_S", 0.0)


@dataclass(frozen=True)
class Model:
    """A function as a model; `seconds` it takes at least."""

    function: Function
    signature: Signature
    seconds: float = 0.0
    threads = 1

    def run(self, inputs: Mapping[str, Array], output_names: Sequence[str]) -> list[Array]:
        end = time.perf_counter() + self.seconds
        outputs = self.function(inputs)
        while time.perf_counter() < end:
            pass
        return [outputs[name] for name in output_names]

    def close(self) -> None: ...


@dataclass
class Trap:
    """One job, with one planted candidate."""

    folder: Path
    monkeypatch: pytest.MonkeyPatch

    def spring(
        self, original: Function, candidate: Function, samples: Samples, goal: Goal = GOAL
    ) -> Report:
        first = original({name: array[:2] for name, array in samples.inputs.items()})
        signature = Signature(
            tuple(_spec(name, array) for name, array in samples.inputs.items()),
            tuple(_spec(name, array) for name, array in first.items()),
        )

        def opener(artifact: Artifact, threads: int) -> Model:
            if artifact.artifact_id == "original":
                return Model(original, signature, seconds=1e-3)
            return Model(candidate, signature)

        options = {"graph_level": "planted"}
        planted = Candidate("planted", (), "onnxruntime", options, ("graph",), is_lossless=False)
        self.monkeypatch.setattr(plan, "candidates", lambda *_, **__: [Outcome(planted)])
        return self.run(random_noise(6), samples, opener, goal)

    def run(self, model: bytes, data: Samples, opener: Opener, goal: Goal) -> Report:
        path = self.folder / "model.onnx"
        path.write_bytes(model)
        work = self.folder / "work"
        work.mkdir()
        return optimize(
            source_of(path), data, goal, opener=opener, store=ArtifactStore(self.folder / "store"),
            work=work, databases={}, listener=lambda _: None, cancelled=threading.Event(),
        )  # fmt: skip


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trap:
    return Trap(tmp_path, monkeypatch)


def _spec(name: str, array: Array) -> TensorSpec:
    kinds = {"float32": "FP32", "int64": "INT64", "object": "BYTES"}
    shape = tuple(f"d{index}" for index in range(1, array.ndim))
    return TensorSpec(name, kinds[array.dtype.name], ("n", *shape))


def planted(report: Report) -> tuple[State, str]:
    entry = report.candidate("planted")
    assert entry is not None
    return entry.state, entry.reason


def softmax(logits: Array) -> Array:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)


def classifier(inputs: Mapping[str, Array]) -> Outputs:
    return {"probabilities": softmax(inputs["x"] @ WEIGHTS * 2)}


def regressor(inputs: Mapping[str, Array]) -> Outputs:
    return {"amount": (inputs["x"] @ WEIGHTS[:, :1]) * 40 + 300}


def encoder(inputs: Mapping[str, Array]) -> Outputs:
    rows = np.concatenate([inputs["x"] @ WEIGHTS, np.sin(3 * inputs["x"])], axis=1)
    return {"embedding": rows / np.linalg.norm(rows, axis=1, keepdims=True)}


def texts(inputs: Mapping[str, Array]) -> Outputs:
    names = np.array([b"bird", b"cat", b"dog", b"eel", b"fox"], object)
    return {"label": names[(inputs["x"] @ WEIGHTS).argmax(axis=1)]}


def numbers(inputs: Mapping[str, Array]) -> Outputs:
    return {"class_id": (inputs["x"] @ WEIGHTS).argmax(axis=1)}


def two_heads(inputs: Mapping[str, Array]) -> Outputs:
    return classifier(inputs) | regressor(inputs)


def tagger(inputs: Mapping[str, Array]) -> Outputs:
    """Logits of each token; what is hidden by the mask is whatever it is."""
    tokens = inputs["ids"][:, :, None] * np.arange(1, 5) % 7 - 3
    return {"logits": tokens.astype(np.float32)}


def sequences(rows: int = 100, tokens: int = 12) -> Samples:
    """Of many lengths, filled up with zeros."""
    random = np.random.default_rng(3)
    lengths = random.integers(2, tokens + 1, rows)
    mask = (np.arange(tokens) < lengths[:, None]).astype(np.int64)
    return Samples({"ids": random.integers(1, 1000, (rows, tokens)) * mask, "attention_mask": mask})


def nearly(function: Function, size: float = 1e-3) -> Function:
    """As quantization changes it; labels stay what they are."""

    def changed(inputs: Mapping[str, Array]) -> Outputs:
        outputs = function(inputs)
        for name, array in outputs.items():
            if array.dtype.kind == "f":
                wave = np.sin(1e4 * array) * np.float32(size * (array.std() or 1.0))
                outputs[name] = (array + wave).astype(np.float32)
        return outputs

    return changed


def where(condition: Callable[[Mapping[str, Array]], Array], function: Function) -> Function:
    """Garbage in some rows: the answer to their opposite."""

    def changed(inputs: Mapping[str, Array]) -> Outputs:
        rows = condition(inputs)
        good = function(inputs)
        bad = function({name: -3 * array for name, array in inputs.items()})
        for name, array in good.items():
            good[name] = np.where(rows.reshape(-1, *[1] * (array.ndim - 1)), bad[name], array)
        return good

    return changed


def in_two_percent(inputs: Mapping[str, Array]) -> Array:
    return np.asarray((np.abs(inputs["x"][:, 0]) * 1e4).astype(int) % 50 == 0)


def when_alone(inputs: Mapping[str, Array]) -> Array:
    return np.full(len(inputs["x"]), len(inputs["x"]) == 1)


FUNCTIONS = [classifier, regressor, encoder, texts, numbers, two_heads]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_what_is_nearly_the_same_wins(trap: Trap, function: Function) -> None:
    report = trap.spring(function, nearly(function), Samples({"x": X}))
    assert planted(report) == (State.MEASURED, "")
    assert report.winner is not None
    assert report.winner.name == "planted"


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
@pytest.mark.parametrize("rows", [in_two_percent, when_alone], ids=lambda rows: rows.__name__)
def test_garbage_in_few_rows(
    trap: Trap, function: Function, rows: Callable[[Mapping[str, Array]], Array]
) -> None:
    many = np.random.default_rng(5).standard_normal((2000, 6)).astype(np.float32)
    report = trap.spring(function, where(rows, function), Samples({"x": many}))
    assert planted(report)[0] is State.REFUSED
    assert report.status == "rejected"


def constant(inputs: Mapping[str, Array]) -> Outputs:
    return {"probabilities": np.full((len(inputs["x"]), CLASSES), 0.2, np.float32)}


def noisy(inputs: Mapping[str, Array]) -> Outputs:
    probabilities = classifier(inputs)["probabilities"]
    return {"probabilities": probabilities + 0.45 * np.sin(1e4 * probabilities)}


TRUTH = classifier({"x": X})["probabilities"].argmax(axis=1)


@pytest.mark.parametrize("candidate", [constant, noisy], ids=lambda function: function.__name__)
@pytest.mark.parametrize(
    "labels",
    [
        pytest.param(np.zeros(ROWS, np.int64), id="all of one class"),
        pytest.param(np.random.default_rng(1).permutation(TRUTH), id="shuffled"),
        pytest.param((TRUTH + 1) % CLASSES, id="permuted"),
        pytest.param(TRUTH, id="right"),
    ],
)
def test_labels_do_not_help_what_is_wrong(trap: Trap, labels: Array, candidate: Function) -> None:
    report = trap.spring(classifier, candidate, Samples({"x": X}, labels))
    assert planted(report)[0] is State.REFUSED


def test_labels_that_are_not_used_are_told(trap: Trap) -> None:
    labels = np.random.default_rng(1).permutation(TRUTH)
    report = trap.spring(classifier, nearly(classifier), Samples({"x": X}, labels))
    assert any("labels were not used" in note for note in report.notes)
    assert planted(report) == (State.MEASURED, "")


def test_a_rare_class_that_is_lost(trap: Trap) -> None:
    def finds(inputs: Mapping[str, Array]) -> Outputs:
        found = np.where(inputs["x"][:, :1] > 2.0, 0.6, 0.1).astype(np.float32)
        return {"probabilities": np.concatenate([1 - found, found], axis=1)}

    def never(inputs: Mapping[str, Array]) -> Outputs:
        found = np.minimum(finds(inputs)["probabilities"][:, 1:], 0.45)
        return {"probabilities": np.concatenate([1 - found, found], axis=1)}

    labels = (X[:, 0] > 2.0).astype(np.int64)
    report = trap.spring(finds, never, Samples({"x": X}, labels))
    assert planted(report)[0] is State.REFUSED


@pytest.mark.parametrize(
    ("x", "reason"),
    [
        pytest.param(np.repeat(X[:1], 512, axis=0), "different rows", id="512 copies of a row"),
        pytest.param(np.tile(X[:40], (20, 1)), "20 different rows", id="20 copies of 40 rows"),
        pytest.param(X[:16], "8 different rows", id="8 rows"),
        pytest.param(np.full_like(X, np.nan), "no finite output", id="nothing but NaN"),
    ],
)
def test_rows_that_prove_nothing(trap: Trap, x: Array, reason: str) -> None:
    report = trap.spring(classifier, nearly(classifier), Samples({"x": x}))
    state, why = planted(report)
    assert state is State.REFUSED
    assert reason in why


@pytest.mark.parametrize("scale", [0.0, 1e-9], ids=["constant", "near zero"])
def test_answers_that_prove_nothing(trap: Trap, scale: float) -> None:
    def silent(inputs: Mapping[str, Array]) -> Outputs:
        return {"y": (inputs["x"] @ WEIGHTS * scale).astype(np.float32)}

    report = trap.spring(silent, silent, Samples({"x": X}))
    assert planted(report)[0] is State.REFUSED
    assert "cannot validate" in planted(report)[1]


def test_a_second_output_that_is_wrong(trap: Trap) -> None:
    def half(inputs: Mapping[str, Array]) -> Outputs:
        return classifier(inputs) | {"amount": regressor(inputs)["amount"] * 0.9}

    report = trap.spring(two_heads, half, Samples({"x": X}))
    assert planted(report)[0] is State.REFUSED
    assert "relative_error" in planted(report)[1]


@pytest.mark.parametrize("is_visible", [True, False])
def test_tokens_count_where_they_are_seen(trap: Trap, is_visible: bool) -> None:
    def wrong(inputs: Mapping[str, Array]) -> Outputs:
        mask = inputs["attention_mask"] == (1 if is_visible else 0)
        odd = mask & (inputs["ids"] % 5 == 0)
        return {"logits": np.where(odd[:, :, None], 9, tagger(inputs)["logits"]).astype(np.float32)}

    report = trap.spring(tagger, wrong, sequences())
    assert planted(report)[0] is (State.REFUSED if is_visible else State.MEASURED)


def test_outliers_among_the_targets(trap: Trap) -> None:
    def flat(inputs: Mapping[str, Array]) -> Outputs:
        return {"amount": 300 + 0.6 * (regressor(inputs)["amount"] - 300)}

    truth = regressor({"x": X})["amount"][:, 0].astype(np.float64)
    truth[::40] += 1e6
    report = trap.spring(regressor, flat, Samples({"x": X}, truth))
    assert planted(report)[0] is State.REFUSED


def test_answers_that_depend_on_their_batch_are_compared_in_the_same_batches(trap: Trap) -> None:
    def centred(inputs: Mapping[str, Array]) -> Outputs:
        logits = inputs["x"] @ WEIGHTS
        return {"probabilities": softmax(logits - 0.5 * logits.mean(axis=0))}

    report = trap.spring(centred, nearly(centred), Samples({"x": X}))
    assert planted(report) == (State.MEASURED, "")


def test_a_model_that_answers_otherwise_each_time(trap: Trap) -> None:
    x = np.ones((100, 4), np.float32)
    with pytest.raises(DataError, match="differently each time"):
        trap.run(random_noise(), Samples({"x": x}), open_artifact, GOAL)


# --- real passes on real graphs


def images(scale: float = 1.0) -> Array:
    return np.random.default_rng(0).random((200, 1, 8, 8), np.float32) * np.float32(scale)


def network(channels: int = 40) -> bytes:
    """x FP32[n, 1, 8, 8] -> y FP32[n, 5]: convolutions, enough weights to be quantized."""
    random = np.random.default_rng(0)
    weights = {
        "w1": random.standard_normal((channels, 1, 3, 3)).astype(np.float32) / 3,
        "w2": random.standard_normal((channels, channels, 3, 3)).astype(np.float32) / 18,
        "w3": random.standard_normal((channels * 64, 5)).astype(np.float32) / 50,
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("Flatten", ["r2"], ["f"]),
        helper.make_node("MatMul", ["f", "w3"], ["y"]),
    ]
    inputs, outputs = [tensor("x", "FP32", ["n", 1, 8, 8])], [tensor("y", "FP32", ["n", 5])]
    return build(nodes, inputs, outputs, weights)


def with_outlier() -> Array:
    x = images()
    x[::7] *= 1e6
    return x


def with_nan() -> Array:
    x = images()
    x[::9, 0, 3, 3] = np.nan
    return x


@pytest.mark.parametrize(
    "x",
    [
        pytest.param(np.full((200, 1, 8, 8), 0.3, np.float32), id="constant"),
        pytest.param(with_outlier(), id="outliers"),
        pytest.param(with_nan(), id="NaN"),
        pytest.param(images(1e-12), id="tiny"),
    ],
)
def test_poisoned_calibration_rows(trap: Trap, x: Array) -> None:
    goal = Goal(techniques=("int8_static",), is_quick=True, benchmark_s=0.1, max_batch=1)
    report = trap.run(network(), Samples({"x": x}), open_artifact, goal)
    (int8,) = [entry for entry in report.candidates if entry.name.startswith("int8 static")]
    assert int8.state in (State.REFUSED, State.FAILED)
    assert report.status == "rejected"


def test_dynamic_int8_leaves_convolutions_alone(trap: Trap) -> None:
    goal = Goal(techniques=("int8_dynamic",), backend="cpu", benchmark_s=0.1, max_batch=1)
    steps = (Step("int8_dynamic"),)
    options = {"graph_level": "all"}
    forced = Candidate("forced", steps, "onnxruntime", options, ("int8_dynamic",), False)
    trap.monkeypatch.setattr(plan, "candidates", lambda *_, **__: [Outcome(forced)])
    report = trap.run(network(), Samples({"x": images()}), open_artifact, goal)
    entry = report.candidate("forced")
    assert entry is not None
    assert entry.state is State.FAILED
    assert "int8_dynamic cannot be applied" in entry.reason
    files = [path.read_bytes() for path in trap.folder.rglob("*.onnx")]
    assert not any(b"ConvInteger" in file for file in files)


def test_half_precision_that_overflows(trap: Trap) -> None:
    weights: dict[str, Array] = {
        "big": np.full((8, 8), 1e6, np.float32),
        "small": np.full((8, 4), 1e-7, np.float32) * np.arange(1, 5, dtype=np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "big"], ["h"]),
        helper.make_node("MatMul", ["h", "small"], ["y"]),
    ]
    model = build(nodes, [tensor("x", "FP32", ["n", 8])], [tensor("y", "FP32", ["n", 4])], weights)
    rows = np.random.default_rng(0).random((100, 8), np.float32) + 1
    goal = Goal(techniques=("fp16",), backend="cpu", benchmark_s=0.1, max_batch=1)
    report = trap.run(model, Samples({"x": rows}), open_artifact, goal)
    (fp16,) = [entry for entry in report.candidates if entry.name.startswith("fp16")]
    assert fp16.state in (State.REFUSED, State.FAILED)
    assert report.status == "rejected"
