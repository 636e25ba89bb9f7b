"""The steps of a job that run in child processes: each a function of values and a work folder.

What they return crosses a process border, so it is small: arrays and models stay in the folder.
Frameworks are imported here and in what is called from here, inside functions.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from optimizer import calibration
from optimizer.artifact import Artifact
from optimizer.batches import ROWS, run_in_batches
from optimizer.benchmark import Benchmark, Entry, fixed_rows
from optimizer.benchmark import measure as measure_in_turns
from optimizer.candidate import Step, Verdict
from optimizer.data.spec import DataSpec
from optimizer.engine_builder import BuildOrder, EngineBuilder
from optimizer.errors import DataError
from optimizer.extras import needed_by
from optimizer.frameworks.contract import Task
from optimizer.goal import Goal
from optimizer.plan import LEVELS, Graph
from optimizer.runner import Opener, Run, Runner, run_all
from optimizer.samples import Samples
from optimizer.source import SourceModel
from optimizer.stage import report_progress
from optimizer.validation import judge
from optimizer.work_folder import WorkFolder
from protos.signature import Signature
from protos.tensors import Array


@dataclass(frozen=True, slots=True)
class Case:
    """What every stage of a job is told."""

    source: SourceModel
    goal: Goal
    opener: Opener
    folder: WorkFolder


_GENERATED_ROWS = 64
_ALONE = 8  # rows that are run one at a time: some forms are wrong in small batches only
_FIRST_BATCHES = (*[1] * _ALONE, 7)
_LEAST_ROWS = 64  # of validation, however long they take
# For the original's answers, which each candidate repeats.
_REFERENCE_S, _QUICK_REFERENCE_S = 15.0, 3.0
_UNJUDGED = Verdict(False, "exact", 0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Original:
    """What is known of the model itself, and of the rows it is compared on."""

    signature: Signature
    task: Task | None
    verdict: Verdict  # of the original against itself: its accuracy where there are labels
    calibration_rows: int
    validation_rows: int
    is_real: bool  # the rows are data, not made up
    has_labels: bool
    data: str  # where they come from, for reports
    row_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Of one real row, by input; empty where no row is real."""

    @property
    def rows_per_run(self) -> int:
        return fixed_rows(self.signature) or ROWS


@dataclass(frozen=True, slots=True)
class Converted:
    """An ONNX form that is the same model."""

    opset: int
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Built:
    """A candidate's file, in the folder it was given."""

    file: str
    modified: bool
    notes: tuple[str, ...]


def prepare(case: Case, data: DataSpec | Path | None, databases: Mapping[str, str]) -> Original:
    """Opens the original, reads or makes up rows, and lets it answer those for validation.

    `data`: a `Path` is of samples as `Samples.save` writes them.

    Raises:
        SourceError: the model cannot be opened.
        DataError: the rows cannot be read, do not fit, or the model does not answer them, or
            otherwise each time.
    """
    goal, folder = case.goal, case.folder
    signature, task, run, make_up, close = _open(case)
    try:
        samples = _samples(data, signature, databases) or make_up(_GENERATED_ROWS, goal.seed)
        learned, judged = _split(samples, goal)
        limit_s = _QUICK_REFERENCE_S if goal.is_quick else _REFERENCE_S
        answers = _answers(run, judged, signature, limit_s=limit_s)
        _ensure_repeatable(run, judged, answers, signature)
    finally:
        close()
    judged = _first(judged, len(next(iter(answers.values()))))
    learned.save(folder.calibration)
    judged.save(folder.validation)
    Samples(answers).save(folder.reference)
    original = Original(
        signature,
        task,
        _UNJUDGED,
        learned.rows,
        judged.rows,
        samples.is_real,
        samples.labels is not None,
        samples.origin,
        {name: array.shape[1:] for name, array in judged.inputs.items() if samples.is_real},
    )
    verdict = _judged(original, goal, judged, (answers, answers), is_lossless=True)
    return replace(original, verdict=verdict)


def _answers(
    run: Run,
    samples: Samples,
    signature: Signature,
    most_rows: int = ROWS,
    limit_s: float = float("inf"),
) -> dict[str, Array]:
    """Of the rows in batches of several sizes, the same ones whoever answers."""
    fixed = fixed_rows(signature)
    first = () if fixed else [min(size, most_rows) for size in _FIRST_BATCHES]
    rows = fixed or most_rows
    return run_in_batches(run, samples, rows, limit_s=limit_s, least=_LEAST_ROWS, first=first)


def _ensure_repeatable(
    run: Run, samples: Samples, answers: Mapping[str, Array], signature: Signature
) -> None:
    """Has the first batches answered again.

    Raises:
        DataError: the answers are others.
    """
    few = _first(samples, fixed_rows(signature) or sum(_FIRST_BATCHES))
    again = _answers(run, few, signature)
    once = {name: array[: few.rows] for name, array in answers.items()}
    verdict = judge(
        once, again, few, task=None, metric="auto", threshold=1.0, is_lossless=True,
        signature=signature,
    )  # fmt: skip
    if not verdict.is_accepted:
        raise DataError(
            "the model answers the same rows differently each time, so that nothing can be"
            f" compared with it (was it saved in training mode?): {verdict.reason}"
        )


def convert(case: Case, target: Path) -> Converted:
    """Writes the model's ONNX form, and makes sure that it is the same model.

    Raises:
        ConversionError: it cannot be converted, or what came out answers differently.
    """
    from optimizer.converters import convert as convert_model  # noqa: PLC0415  heavy
    from optimizer.converters.contract import ConverterInput  # noqa: PLC0415
    from optimizer.converters.parity import ensure_same  # noqa: PLC0415
    from optimizer.frameworks import load_native  # noqa: PLC0415

    rows = Samples.load(case.folder.validation)
    result = convert_model(ConverterInput(case.source, target, case.goal.opset, rows, case.opener))
    native = load_native(case.source, rows)
    ensure_same(native, result.file, case.opener, rows, case.goal.seed)
    return Converted(result.opset, result.notes)


def look(model: Path, is_quick: bool) -> tuple[Graph, tuple[str, ...]]:
    """What an ONNX file is made of, and the graph optimization levels that differ for it.

    Raises:
        PassError: the file is no ONNX model.
        Unavailable: a library is missing.
    """
    with needed_by(f"'{model.name}'", "onnx"):
        from optimizer.passes.graph_facts import facts  # noqa: PLC0415  imports onnx

    found = facts(model)
    graph = Graph(
        opset=found.opset,
        parameters=found.parameters,
        quantizable=found.quantizable,
        convolution_share=found.convolution_share,
        product_share=found.product_share,
        has_attention=found.has_attention,
        is_quantized=found.is_quantized,
        is_classical=found.is_classical,
    )
    if is_quick:
        return graph, LEVELS
    with needed_by(f"'{model.name}'", "onnxruntime"):
        from optimizer.graph_levels import distinct_levels  # noqa: PLC0415

    return graph, distinct_levels(model)


def build(case: Case, steps: Sequence[Step], model: Path, target: Path) -> Built:
    """Applies a candidate's passes, one to what the one before made."""
    from optimizer.passes import apply_steps  # noqa: PLC0415
    from optimizer.passes.contract import PassInput  # noqa: PLC0415

    rows = Samples.load(case.folder.calibration)
    learned = rows if rows.is_real and rows.rows else None
    given = PassInput(model, target, {}, learned, case.opener, case.goal.threads)
    result = apply_steps(steps, given)
    return Built(str(result.file.relative_to(target)), result.modified, result.notes)


def build_engine(builder: EngineBuilder, order: BuildOrder) -> Artifact:
    """Has a TensorRT engine built."""
    return builder.build(order)


def check(case: Case, artifact: Artifact, original: Original, is_lossless: bool) -> Verdict:
    """Whether an artifact answers as the original does."""
    samples = Samples.load(case.folder.validation)
    reference = Samples.load(case.folder.reference).inputs
    runner = case.opener(artifact, case.goal.threads)
    try:
        rows = _rows_of_check(case, artifact, original)
        answers = _answers(_run_of(runner), samples, original.signature, rows)
    finally:
        runner.close()
    return _judged(original, case.goal, samples, (reference, answers), is_lossless=is_lossless)


def _rows_of_check(case: Case, artifact: Artifact, original: Original) -> int:
    """Of one run. An engine has to answer by itself, so it gets no more than it is built for."""
    if artifact.runtime != "tensorrt":
        return original.rows_per_run
    return fixed_rows(original.signature) or min(ROWS, case.goal.max_batch)


def measure(
    case: Case, goal: Goal, entries: Sequence[Entry], baseline: str, memory_mb: int
) -> Benchmark:
    """Times artifacts against each other; reports every turn before it begins.

    `goal` is the job's, or one with less time.
    """
    return measure_in_turns(
        entries,
        Samples.load(case.folder.validation),
        goal,
        case.opener,
        baseline=baseline,
        memory_mb=memory_mb,
        listener=report_progress,
    )


_MakeUp = Callable[[int, int], Samples]
"""(rows, seed) -> rows that the model answers."""


def _open(case: Case) -> tuple[Signature, Task | None, Run, _MakeUp, Callable[[], None]]:
    if case.source.framework != "onnx":
        from optimizer.frameworks import load_native  # noqa: PLC0415

        native = load_native(case.source)
        return native.signature, native.task, native.predict, native.typical_rows, lambda: None
    from optimizer.data import generate  # noqa: PLC0415  reads tables with pandas

    runner = case.opener(original_artifact(case.source), case.goal.threads)
    run = _run_of(runner)
    return runner.signature, None, run, partial(generate, runner.signature, run), runner.close


def original_artifact(source: SourceModel, signature: Signature | None = None) -> Artifact:
    """The model as it was given, as an artifact: its own file, where it lies."""
    folder, file = source.path.parent, source.path.name
    if source.framework == "onnx":
        options = {"graph_level": "all"}
        return Artifact(folder, file, "onnxruntime", "original", (), options, signature)
    options = {"framework": source.framework}
    return Artifact(folder, file, "native", "original", (), options, signature)


def _run_of(runner: Runner) -> Run:
    return partial(run_all, runner)


def _samples(
    data: DataSpec | Path | None, signature: Signature, databases: Mapping[str, str]
) -> Samples | None:
    from optimizer.data import read  # noqa: PLC0415  reads tables with pandas

    if isinstance(data, DataSpec):
        return read(data, signature, databases)
    return Samples.load(data) if isinstance(data, Path) else None


def _split(samples: Samples, goal: Goal) -> tuple[Samples, Samples]:
    """Rows made up prove nothing and teach nothing: all of them are compared."""
    if not samples.is_real:
        return _first(samples, 0), samples
    return calibration.split(samples, goal.seed)


def _first(samples: Samples, rows: int) -> Samples:
    inputs = {name: array[:rows] for name, array in samples.inputs.items()}
    labels = None if samples.labels is None else samples.labels[:rows]
    return replace(samples, inputs=inputs, labels=labels)


def _judged(
    original: Original,
    goal: Goal,
    samples: Samples,
    answers: tuple[Mapping[str, Array], Mapping[str, Array]],
    *,
    is_lossless: bool,
) -> Verdict:
    return judge(
        *answers,
        samples,
        task=original.task,
        metric=goal.metric,
        threshold=goal.accuracy_threshold,
        is_lossless=is_lossless,
        signature=original.signature,
        alone=0 if fixed_rows(original.signature) else _ALONE,
    )
