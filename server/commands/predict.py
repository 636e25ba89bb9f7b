"""`inflight predict`: sends a file to a model and prints, or stores, the answer."""

import argparse
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from client import Client
from protos import models_pb2 as pb
from protos.tensors import DTYPES, Array
from server.commands.connection import CommandError, add_model, add_url, ask, positive, seconds
from server.commands.data_files import read_data
from server.commands.data_fit import fit

_IN_FLIGHT = 4  # requests at once: keeps the server busy while answers travel
_REQUEST_BYTES = 4 * 2**20  # inputs of one request; far below any message limit
_REQUEST_ROWS = 1024


def add_parser(subparsers: Any) -> None:
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "predict",
        help="send a file to a model and print the answer",
        description="The file holds one array per input (.npz, .json, .jsonl), or, for a model "
        "with one input, just that (.npy, .csv, .json, .jsonl). Numbers are converted to the type "
        "the model wants. Many rows are sent in several requests where the model batches.",
    )
    add_model(parser)
    parser.add_argument(
        "--data", required=True, type=Path, metavar="FILE", help=".npz, .npy, .csv, .json or .jsonl"
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE.npz", help="store the outputs there, print nothing"
    )
    parser.add_argument(
        "--batch", type=positive, metavar="N", help="rows in one request (default: as suits)"
    )
    parser.add_argument(
        "--outputs", metavar="NAME,...", default="", help="only these outputs (default: all)"
    )
    parser.add_argument(
        "--timeout-s",
        type=seconds,
        default=60.0,
        metavar="X",
        help="longest wait for one request, in seconds (default: 60)",
    )
    add_url(parser)


def run(arguments: argparse.Namespace) -> int:
    def question(client: Client) -> None:
        outputs = predict(client, arguments)
        if arguments.output is None:
            print(to_json(outputs))
        else:
            _store(outputs, arguments.output)

    return ask(arguments.url, question, arguments.timeout_s)


def predict(client: Client, arguments: argparse.Namespace) -> Mapping[str, Array]:
    """The model's outputs for the whole file."""
    _check_output(arguments.output)
    data = read_data(arguments.data)
    version = _ready_version(client.model(arguments.model, version=arguments.model_version))
    inputs = fit(data, version.inputs)
    rows = arguments.batch or rows_per_request(version, inputs)
    names = tuple(name for name in arguments.outputs.split(",") if name)

    def one(part: Mapping[str, Array]) -> Mapping[str, Array]:
        return client.predict(arguments.model, part, version=arguments.model_version, outputs=names)

    with ThreadPoolExecutor(_IN_FLIGHT) as threads:
        return _joined([*threads.map(one, _parts(inputs, rows))])


def rows_per_request(version: pb.ModelVersion, inputs: Mapping[str, Array]) -> int:
    """How many rows go into one request; 0: all, since they may depend on each other."""
    fixed = {tensor.shape[0] for tensor in version.inputs if tensor.shape and tensor.shape[0] > 0}
    if len(fixed) == 1 and all(tensor.shape for tensor in version.inputs):
        return int(fixed.pop())
    if not version.batching.enabled:
        return 0
    row_bytes = sum(array.nbytes / max(1, len(array)) for array in inputs.values())
    return max(1, min(_REQUEST_ROWS, int(_REQUEST_BYTES / max(1.0, row_bytes))))


def to_json(outputs: Mapping[str, Array]) -> str:
    """One document, nested lists by output name; NaN and infinities, which JSON lacks, are null."""
    return json.dumps({name: _plain(_short(array).tolist()) for name, array in outputs.items()})


def _ready_version(answer: pb.GetModelResponse) -> pb.ModelVersion:
    ready = [version for version in answer.versions if version.state == pb.STATE_READY]
    if ready:
        return ready[-1]
    reasons = "; ".join(f"version {v.version}: {v.reason}" for v in answer.versions if v.reason)
    reasons = reasons or "it has no versions"
    raise CommandError(f"model '{answer.model}' is not ready: {reasons}", exit_code=1)


def _parts(inputs: Mapping[str, Array], rows: int) -> Iterator[Mapping[str, Array]]:
    n_rows = max((len(array) for array in inputs.values() if array.ndim), default=1)
    if not rows or rows >= n_rows:
        yield inputs
        return
    _check_rows(inputs, n_rows)
    for start in range(0, n_rows, rows):
        yield {name: array[start : start + rows] for name, array in inputs.items()}


def _check_rows(inputs: Mapping[str, Array], n_rows: int) -> None:
    for name, array in inputs.items():
        if array.ndim == 0 or len(array) != n_rows:
            raise CommandError(
                f'input "{name}" has shape {list(array.shape)}, expected {n_rows} rows as others'
            )


def _joined(answers: Sequence[Mapping[str, Array]]) -> Mapping[str, Array]:
    if len(answers) == 1:
        return answers[0]
    return {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}


def _check_output(path: Path | None) -> None:
    """Before the work, not after it."""
    if path is None:
        return
    if path.suffix != ".npz":
        raise CommandError(f"--output: expected a name that ends in .npz, got '{path}'")
    if not path.parent.is_dir():
        raise CommandError(f"--output: there is no folder '{path.parent}'")


def _store(outputs: Mapping[str, Array], path: Path) -> None:
    arrays: dict[str, Any] = {
        name: array.astype(bytes) if array.dtype == object else array
        for name, array in outputs.items()
    }
    np.savez(path, **arrays)


def _short(array: Array) -> Array:
    """0.1 rather than 0.10000000149011612: as many digits as the type has."""
    if DTYPES["BF16"] == array.dtype:
        array = array.astype(np.float32)
    if array.dtype in (np.float16, np.float32):
        return array.astype(str).astype(np.float64)
    return array


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(element) for element in value]
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
