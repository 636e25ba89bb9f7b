"""`inflight optimize`: finds the fastest form of a model that answers as the original does."""

import argparse
import json
import shutil
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from optimizer.artifact import Artifact
from optimizer.data import SUFFIXES, DataSpec
from optimizer.errors import DataError, GoalError, OptimizationError, SourceError
from optimizer.goal import TECHNIQUES, Backend, Goal, Metric, Precision
from optimizer.report import Report
from optimizer.source import SourceModel, source_of
from server.commands.connection import CommandError, positive
from server.commands.optimize_display import Display, summary
from server.formats import FORMATS
from server.settings import ServeSettings, SettingsError, read_settings

_USAGE, _FAILED = 2, 1
_DEFAULT = Goal()


@dataclass(frozen=True, slots=True)
class _Task:
    """What is asked for, checked."""

    source: SourceModel
    goal: Goal
    data: DataSpec | None
    databases: Mapping[str, str]
    store: Path


def add_parser(subparsers: Any) -> None:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "optimize",
        help="find the fastest form of a model that answers as the original does",
        description="Tries graph levels, runtimes and precisions on a model file, drops what "
        "answers differently, measures the rest on this machine, and keeps the fastest. Without "
        "data only forms with the original's own arithmetic may win. Exit codes: 0 it found "
        "something faster, or that nothing is; 1 it failed; 2 wrong usage.",
    )
    parser.add_argument(
        "model",
        type=Path,
        metavar="MODEL",
        help=f"a model file ({', '.join(FORMATS)}) or a SavedModel folder",
    )
    _add_data(parser)
    _add_goal(parser)
    _add_limits(parser)
    _add_results(parser)


def _add_data(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("data")
    group.add_argument(
        "--data", type=Path, metavar="FILE", help=f"rows of input: {', '.join(SUFFIXES)}"
    )
    group.add_argument("--query", metavar="SELECT", help="rows of input from --database")
    group.add_argument(
        "--database", metavar="URL", help="sqlite:///file.db, postgresql://user@host/name"
    )
    group.add_argument(
        "--labels",
        metavar="NAME",
        help="array or column with the right answers (default: label, labels, y or target)",
    )


def _add_goal(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("goal")
    group.add_argument(
        "--techniques",
        metavar="NAME,...",
        default="",
        help=f"only these: quantization, {', '.join(TECHNIQUES)} (default: all)",
    )
    group.add_argument("--method", choices=("dynamic", "static"), default="", help="of int8")
    group.add_argument(
        "--precision",
        choices=get_args(Precision),
        default=_DEFAULT.precision,
        help="only forms of this one; fp16 stands for bf16, too",
    )
    group.add_argument(
        "--backend",
        choices=get_args(Backend),
        default=_DEFAULT.backend,
        help="only forms that run there",
    )
    group.add_argument(
        "--objective",
        choices=("latency", "throughput"),
        default="latency",
        help="what counts: a lone row, or rows per second (default: latency)",
    )
    group.add_argument(
        "--metric",
        choices=get_args(Metric),
        default=_DEFAULT.metric,
        help="what accuracy is (default: as suits the outputs)",
    )
    group.add_argument(
        "--accuracy-threshold",
        type=float,
        metavar="RATIO",
        help="least accuracy relative to the original's (default: 0.99; environment:"
        " OPTIMIZATION_ACCURACY_THRESHOLD)",
    )
    group.add_argument(
        "--lossless-only", action="store_true", help="only the same arithmetic up to rounding"
    )


def _add_limits(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("effort")
    group.add_argument("--quick", action="store_true", help="fewer candidates, less measuring")
    group.add_argument(
        "--batch-sizes",
        type=_sizes,
        metavar="N,...",
        default=_DEFAULT.batch_sizes,
        help=f"to measure (default: {','.join(map(str, _DEFAULT.batch_sizes))})",
    )
    group.add_argument(
        "--time-limit-minutes",
        type=float,
        metavar="X",
        help="then the best so far (default: 30; environment: OPTIMIZATION_MAX_TIME_MINUTES)",
    )
    group.add_argument(
        "--benchmark-s",
        type=float,
        metavar="X",
        default=_DEFAULT.benchmark_s,
        help=f"longest measuring, in seconds (default: {_DEFAULT.benchmark_s:g})",
    )
    group.add_argument(
        "--threads",
        type=positive,
        metavar="N",
        help="compute threads it may use (default: all cores)",
    )


def _add_results(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("results")
    group.add_argument(
        "--report",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="write a report, .html or .json; may be given twice",
    )
    group.add_argument(
        "--output", type=Path, metavar="DIR", help="write a model folder to serve the winner from"
    )
    group.add_argument("--json", action="store_true", help="print the report as JSON")
    group.add_argument("--verbose", action="store_true", help="show what libraries print, too")
    group.add_argument(
        "--state-dir", type=Path, metavar="DIR", help="where artifacts are kept, as for serve"
    )
    group.add_argument(
        "--allow-pickle", action="store_true", help="open pickles, which can run any code"
    )


def run(arguments: argparse.Namespace) -> int:
    """0: something faster or nothing is; 1: it failed; 2: the arguments cannot be used."""
    try:
        task = _task(arguments)
        _check_targets(arguments)
    except (CommandError, SettingsError, OptimizationError) as error:
        return _fail(arguments, error, _USAGE)
    try:
        with Display(sys.stderr, verbose=arguments.verbose) as display:
            report, artifact = _optimize(task, display)
            _write(arguments, report, artifact)
    except (GoalError, SourceError, DataError) as error:
        return _fail(arguments, error, _USAGE)
    except (OptimizationError, OSError) as error:
        return _fail(arguments, error, _FAILED)
    print(json.dumps(report.to_json(), indent=1) if arguments.json else summary(report, artifact))
    return 0


def _optimize(task: _Task, display: Display) -> tuple[Report, Artifact]:
    """The report, and the artifact that should serve: the original where nothing is faster."""
    from optimizer.pipeline import optimize  # noqa: PLC0415  not for --help
    from optimizer.stages import original_artifact  # noqa: PLC0415
    from optimizer.store import ArtifactStore  # noqa: PLC0415
    from server.backends.opener import open_artifact  # noqa: PLC0415

    store = ArtifactStore(task.store)
    with tempfile.TemporaryDirectory(prefix="inflight-optimize-") as work:
        report = optimize(
            task.source,
            task.data,
            task.goal,
            opener=open_artifact,
            store=store,
            work=Path(work),
            databases=task.databases,
            listener=display.show,
            cancelled=threading.Event(),
        )
    won = store.get(report.artifact_id) if report.artifact_id else None
    return report, won or original_artifact(task.source)


def _task(arguments: argparse.Namespace) -> _Task:
    # The server's settings, for what both share: folders, cores, and the four known variables.
    flags = {"state_dir": arguments.state_dir, "threads": arguments.threads}
    settings = read_settings(flags)
    source, goal = _source(arguments, settings), _goal(arguments, settings)
    return _Task(source, goal, *_data(arguments), settings.state_dir / "artifacts")


def _source(arguments: argparse.Namespace, settings: ServeSettings) -> SourceModel:
    source = source_of(arguments.model.expanduser().absolute())
    format_ = FORMATS.get(source.path.suffix)
    allowed = arguments.allow_pickle or settings.allow_pickle
    if format_ is not None and format_.runs_code and not allowed:
        raise CommandError(
            f"'{arguments.model}': {format_.name} files can run any code when they are opened;"
            " say --allow-pickle if you trust whoever made this one"
        )
    return source


def _goal(arguments: argparse.Namespace, settings: ServeSettings) -> Goal:
    threshold, minutes = arguments.accuracy_threshold, arguments.time_limit_minutes
    if threshold is None:
        threshold = settings.optimization_accuracy_threshold
    if minutes is None:
        minutes = settings.optimization_max_time_minutes
    return Goal(
        techniques=tuple(name for name in arguments.techniques.split(",") if name),
        method=arguments.method,
        precision=arguments.precision,
        backend=arguments.backend,
        accuracy_threshold=threshold,
        metric=arguments.metric,
        lossless_only=arguments.lossless_only,
        objective=arguments.objective,
        max_batch=max(arguments.batch_sizes),
        batch_sizes=arguments.batch_sizes,
        benchmark_s=arguments.benchmark_s,
        time_limit_s=60 * minutes,
        is_quick=arguments.quick,
        opset=settings.onnx_opset_version,
        threads=settings.threads,
        workspace_gb=settings.tensorrt_workspace_size_gb,
    )


def _data(arguments: argparse.Namespace) -> tuple[DataSpec | None, dict[str, str]]:
    if arguments.query is not None:
        if arguments.data is not None:
            raise CommandError("--data and --query: expected one of them")
        if arguments.database is None:
            raise CommandError("--query: expected --database URL with it")
        spec = DataSpec("sql", query=arguments.query, labels=arguments.labels)
        return spec, {spec.database: arguments.database}
    if arguments.data is None:
        if arguments.labels is not None:
            raise CommandError("--labels: expected --data FILE or --query SELECT with it")
        return None, {}
    path = arguments.data.expanduser()
    if not path.is_file():
        raise CommandError(f"--data: '{arguments.data}': no such file")
    return DataSpec("file", path=path.absolute(), labels=arguments.labels), {}


def _check_targets(arguments: argparse.Namespace) -> None:
    """Before the work, not after it."""
    for path in arguments.report:
        if path.suffix not in (".html", ".json"):
            raise CommandError(f"--report: expected a name in .html or .json, got '{path}'")
        if not path.absolute().parent.is_dir():
            raise CommandError(f"--report: there is no folder '{path.parent}'")
    if arguments.output is not None and (arguments.output / "1").exists():
        raise CommandError(f"--output: '{arguments.output / '1'}' exists: name another folder")


def _write(arguments: argparse.Namespace, report: Report, artifact: Artifact) -> None:
    from optimizer.assembly import pack  # noqa: PLC0415
    from optimizer.report_html import render  # noqa: PLC0415

    for path in arguments.report:
        is_html = path.suffix == ".html"
        text = render(report) if is_html else json.dumps(report.to_json(), indent=1) + "\n"
        path.write_text(text, encoding="utf-8")
    if arguments.output is not None:
        try:
            pack(artifact, arguments.output / "1")
        except BaseException:
            shutil.rmtree(arguments.output / "1", ignore_errors=True)
            raise


def _fail(arguments: argparse.Namespace, error: Exception, code: int) -> int:
    if arguments.json and code == _FAILED:
        report = Report(optimization_id="", status="failed", reason=str(error))
        print(json.dumps(report.to_json(), indent=1))
    print(f"inflight optimize: {error}", file=sys.stderr)
    return code


def _sizes(text: str) -> Sequence[int]:
    """Batch sizes, for argparse."""
    return tuple(sorted({positive(part.strip()) for part in text.split(",")}))
