"""What the native protocol's codec costs a request: bytes -> `InferRequest`, answer -> bytes.

Run from the root: `python -m tests.benchmarks.bench_predict_codec`. Prints one JSON document with
microseconds (best of several repetitions) for one small FP32 tensor each way, and for 600 KB.
"""

import json
import timeit
from collections.abc import Callable

import numpy as np

from protos import predict_pb2 as pb
from protos.tensors import Array
from server.request import InferResponse, Timing
from server.rpc.messages import parse
from server.rpc.predict import decode_request, encode_response

REPETITIONS = 7


def request(array: Array) -> bytes:
    tensor = pb.Tensor(name="x", datatype="FP32", shape=array.shape, raw=array.tobytes())
    return pb.PredictRequest(model="m", request_id="r-1", inputs=[tensor]).SerializeToString()


def decoding(array: Array) -> Callable[[], object]:
    data = request(array)
    return lambda: decode_request(parse(pb.PredictRequest, data), None)


def encoding(array: Array, explain: bool) -> Callable[[], object]:
    response = InferResponse("m", 1, "r-1", {"y": array}, "onnx-0123456789ab", Timing(1e-3, 5e-4))
    return lambda: encode_response(response, explain)


def microseconds(work: Callable[[], object], number: int) -> float:
    return round(min(timeit.repeat(work, number=number, repeat=REPETITIONS)) / number * 1e6, 2)


def main() -> None:
    result = {}
    for name, array, number in (
        ("tiny", np.ones((1, 4), np.float32), 20_000),
        ("600_kb", np.ones((1, 150_000), np.float32), 200),
    ):
        result[name] = {
            "decode_us": microseconds(decoding(array), number),
            "encode_us": microseconds(encoding(array, explain=False), number),
            "encode_explained_us": microseconds(encoding(array, explain=True), number),
        }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
