"""A load generator in Python, in a process of its own: for machines without perf_analyzer.

Requests are serialized once and answers are not parsed, so what it costs is grpc.aio itself;
that is still about as much as a grpc.aio server costs per request.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import uvloop

from loadtests.load_result import Load, LoadResult
from protos.inference import grpc_service_pb2 as pb
from protos.tensors import datatype_of, encode

_WARM_UP_SHARE = 0.2


def run(load: Load) -> LoadResult:
    """Applies the load from a child process.

    Raises:
        RuntimeError: a request failed; carries what the child printed.
    """
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder, "inputs.npz")
        np.savez(inputs, allow_pickle=False, **dict(load.inputs))
        command = [sys.executable, "-m", "loadtests.python_client", load.address, load.model]
        command += [str(inputs), str(load.concurrency), str(load.duration_s)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the Python client failed:\n{done.stderr}")
    return LoadResult(**json.loads(done.stdout))


async def _drive(load: Load) -> LoadResult:
    start = time.monotonic() + load.duration_s * _WARM_UP_SHARE
    end = start + load.duration_s
    latencies: list[float] = []
    message = _request(load).SerializeToString()
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    async with grpc.aio.insecure_channel(load.address, options) as channel:
        infer: Any = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")

        async def caller() -> None:
            while (began := time.monotonic()) < end:
                await infer(message)
                if began >= start:
                    latencies.append(time.monotonic() - began)

        await asyncio.gather(*(caller() for _ in range(load.concurrency)))
    return _result(load, latencies, time.monotonic() - start)


def _request(load: Load) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name=load.model)
    for name, array in load.inputs.items():
        request.inputs.add(name=name, datatype=datatype_of(array), shape=array.shape)
        request.raw_input_contents.append(encode(array))
    return request


def _result(load: Load, latencies: list[float], elapsed_s: float) -> LoadResult:
    p50, p95, p99 = np.percentile(latencies, [50, 95, 99]) * 1e3
    per_s = len(latencies) / elapsed_s
    return LoadResult("python", load.concurrency, per_s, float(p50), float(p95), float(p99))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("model")
    parser.add_argument("inputs", type=Path)
    parser.add_argument("concurrency", type=int)
    parser.add_argument("duration_s", type=float)
    arguments = parser.parse_args()
    with np.load(arguments.inputs) as arrays:
        inputs = dict(arrays)
    load = Load(**{**vars(arguments), "inputs": inputs})
    print(json.dumps(asdict(uvloop.run(_drive(load)))))


if __name__ == "__main__":
    main()
