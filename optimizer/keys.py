"""What decides what an optimization makes: the parts of the keys in the store.

Parts have names that people know, as the store tells which of them changed.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from optimizer.candidate import Candidate
from optimizer.data.spec import DataSpec
from optimizer.device import Device
from optimizer.goal import Goal
from optimizer.samples import Samples
from protos.tensors import encode

_DOES_NOT_MATTER = ("time_limit_s", "memory_limit_mb", "benchmark_s")
"""Of the goal: how long it may take, not what is wanted."""


def artifact_parts(
    source: str, candidate: Candidate, device: Device, goal: Goal, data: str
) -> dict[str, str]:
    """Of one built candidate. `source` and `data` are fingerprints."""
    return {
        "model": source,
        "steps": _text([[step.name, dict(step.settings)] for step in candidate.steps]),
        "runtime": candidate.runtime,
        "options": _text(dict(candidate.options)),
        "opset": str(goal.opset),
        "data": data if candidate.needs_data else "",
        "seed": str(goal.seed) if candidate.needs_data else "",
        **_libraries(device),
    }


def winner_parts(source: str, device: Device, goal: Goal, data: str) -> dict[str, str]:
    """Of what a whole job ends in."""
    wanted = {
        f"goal {field.name}": _text(getattr(goal, field.name))
        for field in fields(goal)
        if field.name not in _DOES_NOT_MATTER
    }
    return {"model": source, "data": data, **wanted, **_machine(device), **_libraries(device)}


def data_print(data: DataSpec | Samples | None) -> str:
    """Names the rows: by content, and a query by its text, as it is not run for this."""
    if data is None:
        return "none"
    if isinstance(data, Samples):
        return _samples_print(data)
    spec = _text([data.query, data.database, data.labels, data.row_limit])
    content = _file_print(data.path) if data.path else ""
    return hashlib.sha256(f"{data.source} {spec} {content}".encode()).hexdigest()


def _samples_print(samples: Samples) -> str:
    digest = hashlib.sha256(str(samples.is_real).encode())
    labels = {} if samples.labels is None else {"labels": samples.labels}
    for name, array in {**samples.inputs, **labels}.items():
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(encode(array))
    return digest.hexdigest()


def _file_print(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return "unreadable"  # whoever reads it says why


def _machine(device: Device) -> dict[str, str]:
    return {
        "CPU": device.cpu,
        "cores": str(device.cores),
        "instructions": " ".join(device.features),
        "GPUs": "; ".join(
            f"{gpu.name} {gpu.compute_capability} driver {gpu.driver}" for gpu in device.gpus
        ),
    }


def _libraries(device: Device) -> dict[str, str]:
    return {"libraries": " ".join(f"{k} {v}" for k, v in sorted(device.versions.items()))}


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        value = {str(key): item for key, item in value.items()}
    return json.dumps(value, sort_keys=True)
