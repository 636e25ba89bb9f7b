"""`optimizer.optimize(...)`: the whole of it as one call, for notebooks and scripts.

A composition root: it hands the optimizer what the server serves with, imported when it is needed.
"""

import contextlib
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from optimizer import in_memory
from optimizer.artifact import Artifact
from optimizer.errors import OptimizationError
from optimizer.goal import Backend, Goal, Metric, Objective, Precision
from optimizer.source import SourceModel, source_of
from protos.tensors import Array

if TYPE_CHECKING:
    from optimizer.progress import Progress
    from optimizer.report import Report
    from optimizer.runner import Runner
    from optimizer.store import ArtifactStore

Answer: TypeAlias = Array | dict[str, Array]


class OptimizedModel:
    """A model in its fastest acceptable form, open; the original where nothing was better.

    Close it, or use it in a `with`. `predict` may be called from several threads at once.
    """

    def __init__(
        self, artifact: Artifact, report: "Report", runner: "Runner", held: contextlib.ExitStack
    ) -> None:
        self.artifact = artifact
        self.report = report
        self._runner, self._held = runner, held

    def predict(self, x: Any) -> Answer:
        """All outputs for rows of input: an array where there is one output, else by name.

        `x`: an array for a model with one input, arrays by name, or a table with the columns that
        the model was trained on. Texts come back as bytes.

        Raises:
            DataError: the rows do not fit the model; names input, expected and given.
        """
        from optimizer.batches import run_in_batches  # noqa: PLC0415
        from optimizer.benchmark import fixed_rows  # noqa: PLC0415
        from optimizer.runner import run_all  # noqa: PLC0415

        samples = in_memory.fitted(x, self._runner.signature)

        def run(inputs: Mapping[str, Array]) -> dict[str, Array]:
            return run_all(self._runner, inputs)

        rows = fixed_rows(self._runner.signature) or samples.rows
        answers = run_in_batches(run, samples, rows)
        return next(iter(answers.values())) if len(answers) == 1 else answers

    def save(self, folder: str | Path) -> Path:
        """Writes a model folder that `inflight serve` serves; returns it.

        Raises:
            OptimizationError: there is a version in it already.
        """
        from optimizer.assembly import pack  # noqa: PLC0415

        folder = Path(folder)
        version = folder / "1"
        if version.exists():
            raise OptimizationError(f"'{version}' exists: name another folder, or remove it")
        pack(self.artifact, version)
        return folder

    def close(self) -> None:
        """Frees the model."""
        self._held.close()

    def __enter__(self) -> "OptimizedModel":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"OptimizedModel({self.artifact.artifact_id}: {self.report.reason})"


def optimize(
    model: Any,
    data: Any = None,
    *,
    labels: str | None = None,
    example: Any = None,
    precision: Precision = "auto",
    backend: Backend = "auto",
    objective: Objective = "latency",
    metric: Metric = "auto",
    techniques: Iterable[str] = (),
    accuracy_threshold: float = 0.99,
    quick: bool = False,
    time_limit_minutes: float = 30.0,
    threads: int | None = None,
    state_dir: str | Path | None = None,
    listener: "Callable[[Progress], None] | None" = None,
    **goal: Any,
) -> OptimizedModel:
    """Finds the fastest form of a model that answers as the original does.

    Takes a minute or two, seconds with `quick`; no time where the same was asked before.

    Args:
        model: Path of a model, or a fitted scikit-learn, XGBoost, LightGBM, Keras or PyTorch model.
        data: Rows to calibrate with and to be compared on: X, or (X, y) with the right answers; X
            is an array, arrays by input name, or a table. Or the path of a file. Without real rows
            only forms with the original's own arithmetic are chosen.
        labels: Array or column of the file that holds the right answers.
        example: Inputs of a torch.nn.Module, for its export; by default the first rows of `data`.
        precision: Only forms of this one; fp16 stands for bf16, too.
        backend: Only forms that run there.
        objective: What counts: a lone row, or rows per second.
        metric: What accuracy is; by default what suits the outputs.
        techniques: By name, see `optimizer.goal.TECHNIQUES`; empty: all.
        accuracy_threshold: Least ratio to the original's accuracy, or agreement with it.
        quick: Fewer candidates, shorter measurements.
        time_limit_minutes: Then the best so far.
        threads: Compute threads that may be used; default: all cores.
        state_dir: Where artifacts are kept; default: where the server keeps them.
        listener: Is told of every step.
        goal: Other fields of `optimizer.goal.Goal`: max_batch, batch_sizes, benchmark_s, ...

    Raises:
        GoalError: what is asked for makes no sense.
        OptimizationError: the model cannot be run, or the data do not fit it.
    """
    from optimizer.pipeline import optimize as run_job  # noqa: PLC0415
    from optimizer.store import ArtifactStore  # noqa: PLC0415
    from server.backends.opener import open_artifact  # noqa: PLC0415
    from server.settings import ServeSettings, available_cores  # noqa: PLC0415

    wanted = Goal(
        precision=precision,
        backend=backend,
        objective=objective,
        metric=metric,
        techniques=tuple(techniques),
        accuracy_threshold=accuracy_threshold,
        is_quick=quick,
        time_limit_s=60 * time_limit_minutes,
        threads=threads or available_cores(),
        **goal,
    )
    root = Path(state_dir) if state_dir is not None else ServeSettings().state_dir
    with contextlib.ExitStack() as held:
        folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="inflight-")))
        source = _source(model, folder, data, example)
        rows = in_memory.written(data, labels, folder)
        work = folder / "work"
        work.mkdir()
        store = ArtifactStore(root / "artifacts")
        report = run_job(
            source,
            rows,
            wanted,
            opener=open_artifact,
            store=store,
            work=work,
            databases={},
            listener=listener or (lambda progress: None),
            cancelled=threading.Event(),
        )
        shutil.rmtree(work)
        artifact = _artifact(report, store, source, held)
        runner = open_artifact(artifact, wanted.threads)
        held.callback(runner.close)
        return OptimizedModel(artifact, report, runner, held.pop_all())


def _source(model: Any, folder: Path, data: Any, example: Any) -> SourceModel:
    if isinstance(model, str | Path):
        return source_of(Path(model).expanduser().absolute())
    from optimizer.frameworks import save_native  # noqa: PLC0415

    if example is None:
        example = in_memory.first_rows(data)
    target = folder / "model"
    target.mkdir()
    return save_native(model, target, example)


def _artifact(
    report: "Report", store: "ArtifactStore", source: SourceModel, held: contextlib.ExitStack
) -> Artifact:
    from optimizer.stages import original_artifact  # noqa: PLC0415

    if report.artifact_id is not None:
        held.enter_context(store.hold(report.artifact_id))
        artifact = store.get(report.artifact_id)
        if artifact is None:
            raise OptimizationError(f"artifact '{report.artifact_id}' is gone from the store")
        return artifact
    return original_artifact(source)
