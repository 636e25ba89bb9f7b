"""ONNX's own backend test-suite, served: every case that ONNX Runtime passes must pass over gRPC.

All cases' models are one repository, served by one process at once. Each case then runs twice,
in this process and through the server, and both are compared with the suite's expected outputs.
The report names every case that passes here and not there, the start-up time and the memory.
"""

import argparse
import json
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper
from onnx.backend.test import loader

from client import Client, InferenceError, RetryPolicy
from loadtests.server_process import serving
from protos.tensors import Array, datatype_of

KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator", "real")
_NO_RETRY = RetryPolicy(max_attempts=1)


@dataclass(frozen=True, slots=True)
class Case:
    """One case: a model and data sets of inputs and expected outputs, by position."""

    name: str
    model: bytes
    data_sets: Sequence[tuple[Sequence[Any], Sequence[Any]]]
    rtol: float
    atol: float


def cases(kinds: Sequence[str]) -> Iterator[Case]:
    """The suite's cases of these kinds; `real` are the light models, which come without data."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the generators overflow and divide by zero on purpose
        found = [case for kind in kinds for case in loader.load_model_tests(kind=kind)]
    for case in found:
        if case.model is not None:
            yield _case(case, case.model.SerializeToString(), case.data_sets or [])
        elif case.model_dir is not None:
            folder = Path(case.model_dir)
            yield _case(case, (folder / "model.onnx").read_bytes(), list(_stored(folder)))
        elif case.url is not None:
            root = Path(onnx.__file__).parents[1]
            model = (root / case.url).read_bytes()
            yield _case(case, model, [_made_up(model)])


def _case(case: Any, model: bytes, data_sets: Sequence[tuple[Any, Any]]) -> Case:
    return Case(case.name, model, data_sets, case.rtol, case.atol)


def _stored(folder: Path) -> Iterator[tuple[list[Any], list[Any]]]:
    for data in sorted(folder.glob("test_data_set_*")):
        yield _stored_values(data, "input"), _stored_values(data, "output")


def _stored_values(data: Path, what: str) -> list[Any]:
    """Tensors in order; None for a value that is no tensor (a sequence, an optional)."""
    count = len(list(data.glob(f"{what}_*.pb")))
    return [_tensor((data / f"{what}_{index}.pb").read_bytes()) for index in range(count)]


def _tensor(serialized: bytes) -> Array | None:
    try:
        tensor = onnx.TensorProto.FromString(serialized)
        return numpy_helper.to_array(tensor) if tensor.data_type else None
    except Exception:
        return None


def _made_up(model: bytes) -> tuple[list[Array], list[Array]]:
    """Seeded input for a model without data; what ONNX Runtime answers is what is expected."""
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    random = np.random.default_rng(0)
    inputs = [random.random(value.shape, np.float32) for value in session.get_inputs()]
    names = [value.name for value in session.get_inputs()]
    return inputs, session.run(None, dict(zip(names, inputs, strict=True)))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one case on one side; `reason` is empty where it passed."""

    reason: str
    names: tuple[str, ...] = ()  # of the model's inputs

    @property
    def passed(self) -> bool:
        return not self.reason


def run_in_process(case: Case) -> Outcome:
    """The case in this process, and the model's input names for the run through the server."""
    try:
        session = ort.InferenceSession(case.model, providers=["CPUExecutionProvider"])
        names = tuple(value.name for value in session.get_inputs())
        for inputs, expected in case.data_sets:
            feeds = {name: _as_array(value) for name, value in zip(names, inputs, strict=False)}
            difference = _difference(session.run(None, feeds), expected, case)
            if difference:
                return Outcome(difference)
    except Exception as error:
        return Outcome(f"{type(error).__name__}: {error}")
    return Outcome("", names)


def run_served(client: Client, case: Case, names: tuple[str, ...]) -> Outcome:
    try:
        for inputs, expected in case.data_sets:
            feeds = {name: _as_array(value) for name, value in zip(names, inputs, strict=False)}
            outputs = client.predict(case.name, feeds, timeout_s=60)
            difference = _difference(list(outputs.values()), expected, case)
            if difference:
                return Outcome(difference)
    except (InferenceError, ValueError) as error:
        return Outcome(str(error))
    return Outcome("")


def _as_array(value: Any) -> Any:
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    return np.asarray(value) if isinstance(value, np.generic) else value


def expressible(case: Case) -> bool:
    """Whether the protocol has a form for every value: tensors of its datatypes, nothing else."""
    values = [value for data in case.data_sets for side in data for value in side]
    return all(_has_datatype(_as_array(value)) for value in values)


def _has_datatype(value: Any) -> bool:
    if not isinstance(value, np.ndarray):
        return False
    try:
        return bool(datatype_of(value))
    except ValueError:
        return False


def _difference(actual: Sequence[Any], expected: Sequence[Any], case: Case) -> str:
    """Empty where the outputs are the expected ones, by the suite's own rules."""
    if len(actual) != len(expected):
        return f"{len(actual)} outputs, expected {len(expected)}"
    for index, (left, right) in enumerate(zip(actual, expected, strict=True)):
        reason = _unequal(left, _as_array(right), case)
        if reason:
            return f"output {index}: {reason}"
    return ""


def _unequal(actual: Any, expected: Any, case: Case) -> str:
    if isinstance(expected, list):
        parts = zip(actual, expected, strict=True)
        return next(filter(None, (_unequal(a, _as_array(e), case) for a, e in parts)), "")
    if actual is None or expected is None:
        return "" if actual is expected else "one of them is none"
    if actual.shape != expected.shape:
        return f"shape {actual.shape}, expected {expected.shape}"
    if expected.dtype == object or expected.dtype.kind in "SU":
        return "" if _texts(actual) == _texts(expected) else "other strings"
    if actual.dtype != expected.dtype:
        return f"dtype {actual.dtype}, expected {expected.dtype}"
    close = np.allclose(
        actual.astype(np.float64) if actual.dtype.kind in "fV" else actual,
        expected.astype(np.float64) if actual.dtype.kind in "fV" else expected,
        rtol=case.rtol,
        atol=case.atol,
        equal_nan=True,
    )
    return "" if close else "other values"


def _texts(array: Array) -> list[str]:
    return [v.decode() if isinstance(v, bytes) else str(v) for v in array.ravel().tolist()]


def _write_repository(repository: Path, found: Sequence[Case]) -> Path:
    for case in found:
        version = repository / case.name / "1"
        version.mkdir(parents=True, exist_ok=True)
        (version / "model.onnx").write_bytes(case.model)
    return repository


def run(kinds: Sequence[str], limit: int | None = None) -> dict[str, Any]:
    """Serves and compares the cases; see the module for what comes back."""
    ort.set_default_logger_severity(4)
    found = list(cases(kinds))[:limit]
    here = {case.name: run_in_process(case) for case in found}
    served: dict[str, Outcome] = {}
    with tempfile.TemporaryDirectory(prefix="inflight-suite-") as folder:
        repository = _write_repository(Path(folder), found)
        began = time.monotonic()
        with serving(repository, timeout_s=1800) as server:
            ready_s, ready_bytes = time.monotonic() - began, server.memory_bytes()
            with Client(server.grpc, retry=_NO_RETRY) as client:
                for case in found:
                    if here[case.name].passed and expressible(case):
                        served[case.name] = run_served(client, case, here[case.name].names)
            memory = server.memory_bytes()
            models, failed = server.models, server.failed
    lost = {name: outcome.reason for name, outcome in served.items() if not outcome.passed}
    passed_here = [name for name, outcome in here.items() if outcome.passed]
    return {
        "cases": len(found),
        "passed_in_process": len(passed_here),
        "no_form_in_the_protocol": sorted(set(passed_here) - set(served)),
        "passed_through_grpc": len(served) - len(lost),
        "passed_in_process_only": lost,
        "models_ready": models,
        "models_failed": failed,
        "start_s": round(ready_s, 1),
        "memory_mb": {"ready": ready_bytes >> 20, "at_the_end": memory >> 20},
        "why_in_process_failed": dict(Counter(_kind_of(o.reason) for o in here.values())),
    }


def _kind_of(reason: str) -> str:
    return reason.partition(":")[0] or "passed"


def main() -> int:
    parser = argparse.ArgumentParser(description="ONNX's backend test-suite through gRPC.")
    parser.add_argument("--kinds", default=",".join(KINDS), help="default: %(default)s")
    parser.add_argument("--limit", type=int, help="only the first N cases")
    arguments = parser.parse_args()
    report = run(arguments.kinds.split(","), arguments.limit)
    print(json.dumps(report, indent=2))
    return 1 if report["passed_in_process_only"] else 0


if __name__ == "__main__":
    sys.exit(main())
