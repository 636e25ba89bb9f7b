"""What an Open Inference request and its response cost to decode and encode.

Run from the root: `python -m tests.benchmarks.bench_open_inference_codec`. Prints one JSON
document with microseconds per message (best of several repetitions), for one FP32 input and one
FP32 output of several sizes, by unary call and as a message of a stream.
"""

import json
import timeit
from collections.abc import Callable

import numpy as np

from protos.inference import grpc_service_pb2 as pb
from server.request import InferResponse, Timing
from server.rpc.messages import parse
from server.rpc.open_inference_codec import (
    decode_request,
    encode_response,
    encode_stream_response,
)
from server.shared_memory import SharedMemoryRegions

SIZES = {"tiny (16 B)": 4, "mlp (1 KB)": 256, "image (600 KB)": 150_528}
REPETITIONS = 7


def us(run: Callable[[], object], number: int) -> float:
    return round(min(timeit.repeat(run, number=number, repeat=REPETITIONS)) / number * 1e6, 2)


def measure(width: int) -> dict[str, float]:
    array = np.ones((1, width), np.float32)
    message = pb.ModelInferRequest(model_name="model", id="17")
    message.inputs.add(name="INPUT0", datatype="FP32", shape=array.shape)
    message.outputs.add(name="OUTPUT0")
    message.raw_input_contents.append(array.tobytes())
    data, regions = message.SerializeToString(), SharedMemoryRegions()
    response = InferResponse("model", 1, "17", {"OUTPUT0": array}, "onnx-1", Timing())
    number = 20_000 if array.nbytes < 10_000 else 1_000
    decoding = us(lambda: decode_request(parse(pb.ModelInferRequest, data), None, regions), number)
    encoding = us(lambda: encode_response(response), number)
    streamed = us(lambda: encode_stream_response(response), number)
    return {"decode_us": decoding, "encode_us": encoding, "encode_in_stream_us": streamed}


def main() -> None:
    print(json.dumps({name: measure(width) for name, width in SIZES.items()}, indent=2))


if __name__ == "__main__":
    main()
