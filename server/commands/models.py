"""`inflight models`: what a server serves, all about one model, and which form of it serves."""

import argparse
import json
from collections.abc import Mapping, MutableSequence, Sequence
from typing import Any

from google.protobuf.message import Message

from client import Client
from protos import models_pb2 as pb
from server.commands.connection import CommandError, add_url, ask, positive
from server.commands.table import milliseconds, rate, table


def add_parser(subparsers: Any) -> None:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "models", help="list the models of a server, or describe one"
    )
    parser.add_argument("model", nargs="?", metavar="MODEL", help="describe this model")
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument(
        "--promote",
        nargs="?",
        const="",
        default=None,
        metavar="JOB",
        help="let the artifact of a job (of the latest one) serve in place of MODEL's own file",
    )
    forms.add_argument("--roll-back", action="store_true", help="let MODEL's own file serve again")
    parser.add_argument(
        "--version",
        type=positive,
        metavar="N",
        dest="model_version",
        help="the version to promote or roll back (default: the one that answers)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_url(parser)


def run(arguments: argparse.Namespace) -> int:
    def question(client: Client) -> None:
        if arguments.promote is not None or arguments.roll_back:
            print(_exchange(client, arguments))
        elif arguments.model:
            answer = client.model(arguments.model)
            print(_json([answer]) if arguments.json else describe(answer))
        else:
            models = client.models()
            print(_json(models) if arguments.json else list_models(models))

    return ask(arguments.url, question)


def _exchange(client: Client, arguments: argparse.Namespace) -> str:
    """Promotes or rolls back; says what serves now."""
    model, version = arguments.model, arguments.model_version
    if not model:
        raise CommandError("--promote and --roll-back need a MODEL")
    if arguments.roll_back:
        served = client.roll_back(model, version=version)
    else:
        served = client.promote(model, version=version, job_id=arguments.promote)
    made = f" ({', '.join(served.techniques)}, {served.id or 'an earlier job'})"
    return f"{model} version {served.version}: {served.artifact_id} serves" + (
        made if served.techniques else ""
    )


def list_models(models: list[pb.ModelSummary]) -> str:
    """The table of all models."""
    if not models:
        return "the server has no models"
    header = ("MODEL", "VERSION", "STATE", "BATCHING", "MAX", "P50 MS", "P99 MS", "RATE/S", "WHY")
    return table(header, [_summary(model) for model in models])


def describe(answer: pb.GetModelResponse) -> str:
    """Everything about one model, for people."""
    return "\n\n".join(_version(answer.model, version) for version in answer.versions)


def _summary(model: pb.ModelSummary) -> tuple[str, ...]:
    is_ready = model.state == pb.STATE_READY
    measured = is_ready and model.total.count > 0
    return (
        model.model,
        str(model.version or "-"),
        state_name(model.state),
        ("yes" if model.batching else "no") if is_ready else "-",
        str(model.max_batch) if is_ready else "-",
        milliseconds(model.total.p50_ms) if measured else "-",
        milliseconds(model.total.p99_ms) if measured else "-",
        rate(model.total.rate) if is_ready else "-",
        model.reason or model.batching_reason or _made_by(model),
    )


def _made_by(model: pb.ModelSummary) -> str:
    return f"optimized: {', '.join(model.techniques)}" if model.techniques else ""


def state_name(state: pb.State) -> str:
    return pb.State.Name(state).removeprefix("STATE_").lower()


def _version(model: str, version: pb.ModelVersion) -> str:
    state = state_name(version.state) + (f": {version.reason}" if version.reason else "")
    number = f" version {version.version}" if version.version else ""
    lines = [f"{model}{number}  {state}"]
    if version.state == pb.STATE_READY:
        lines += [f"  {name:<10}{text}" for name, text in _details(version) if text]
    return "\n".join(lines)


def _details(version: pb.ModelVersion) -> list[tuple[str, str]]:
    batching = version.batching
    execution, latency = version.execution, version.latency
    return [
        *(("input", _tensor(tensor)) for tensor in version.inputs),
        *(("output", _tensor(tensor)) for tensor in version.outputs),
        ("batching", "yes" if batching.enabled else _no(batching.reason)),
        ("padding", "yes" if batching.padding else _no(batching.padding_reason)),
        ("max batch", f"{batching.settings.max_batch}, {version.max_batch_reason}".rstrip(", ")),
        *_curve(version),
        ("runs on", _layout(execution)),
        ("artifact", f"{version.artifact_id} ({version.platform})"),
        ("optimized", _optimized(version)),
        ("memory", _size(version.memory_bytes)),
        ("loaded in", f"{version.load_ms:.0f} ms, {version.warm_up_ms:.0f} ms of them warm-up"),
        ("requests", f"{latency.successes} answered, {latency.failures} failed"),
        ("batches", _batches(latency)),
        ("dropped", _counts(latency.dropped)),
        ("latency", _latency(latency)),
        ("config", version.config_origin),
        *(("warning", text) for text in version.warnings),
    ]


def _tensor(tensor: pb.TensorInfo) -> str:
    names = [  # the server calls a dimension without a name by its place, "x[0]"
        "?" if name == f"{tensor.name}[{axis}]" else name
        for axis, name in enumerate(tensor.dimension_names)
    ]
    sizes = [name or str(size) for name, size in zip(names, tensor.shape, strict=True)]
    optional = " (optional)" if tensor.optional else ""
    return f"{tensor.name} {tensor.datatype}[{', '.join(sizes)}]{optional}"


def _optimized(version: pb.ModelVersion) -> str:
    by = f" by {version.optimization_id}" if version.optimization_id else ""
    return ", ".join(version.techniques) + by


def _no(reason: str) -> str:
    return reason and f"no: {reason}"


def _curve(version: pb.ModelVersion) -> list[tuple[str, str]]:
    """What was measured at load: a column per batch size."""
    lines = [
        ("rows", *(str(point.batch) for point in version.curve)),
        ("ms", *(milliseconds(point.latency_ms) for point in version.curve)),
        ("rows/s", *(rate(point.rows_per_s) for point in version.curve)),
    ]
    text = table(lines[0], lines[1:]).splitlines() if version.curve else []
    return [*zip(("measured", "", ""), text, strict=False)]


def _size(n_bytes: int) -> str:
    unit, name = (2**20, "MiB") if n_bytes >= 2**20 else (2**10, "KiB")
    return f"{n_bytes / unit:.1f} {name}"


def _layout(execution: pb.Execution) -> str:
    wide = f", {execution.wide_threads} for a lone batch" if execution.wide_threads else ""
    devices = ", ".join(execution.devices)
    return f"{devices}; {execution.instances} at once, threads of each: {execution.threads}{wide}"


def _batches(latency: pb.ModelLatency) -> str:
    if not latency.batches:
        return ""
    mean = latency.rows / latency.batches
    return f"{latency.batches}, {mean:.1f} rows on average; left because: " + _counts(
        latency.released
    )


def _counts(counts: Any) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()) if count)


def _latency(latency: pb.ModelLatency) -> str:
    total = latency.total
    if not total.count:
        return f"no requests in the last {latency.window_s} s"
    quantiles = ", ".join(
        f"{name} {milliseconds(value)}"
        for name, value in (("p50", total.p50_ms), ("p95", total.p95_ms), ("p99", total.p99_ms))
    )
    return f"{quantiles} ms, {rate(total.rate)}/s over the last {latency.window_s} s"


def _json(messages: Sequence[Message]) -> str:
    """One document: a list of models."""
    return json.dumps([as_dict(message) for message in messages], indent=2)


def as_dict(message: Message) -> dict[str, Any]:
    """A message for JSON: numbers as numbers, states as words, all plain fields present."""
    result: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        if not field.has_presence or message.HasField(field.name):
            result[field.name] = _value(field, getattr(message, field.name))
    return result


def _value(field: Any, value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: as_dict(v) if isinstance(v, Message) else v for key, v in value.items()}
    if isinstance(value, MutableSequence):
        return [as_dict(one) if isinstance(one, Message) else one for one in value]
    if field.enum_type is not None:
        return state_name(value)
    return as_dict(value) if isinstance(value, Message) else value
