"""The least a grpc.aio server can do: a constant answer, without a model, a queue or a check.

What it costs per request is what any server on this transport costs at least; `bench.py` measures
Inflight next to it with the same client in the same run. It answers the calls of the Open
Inference Protocol that perf_analyzer makes, for the `tiny` model.
"""

import sys
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import uvloop
from google.protobuf.message import Message

from protos.inference import grpc_service_pb2 as pb
from protos.inference import model_config_pb2 as config

_SERVICE = "inference.GRPCInferenceService"
Handler = Callable[[bytes, "grpc.aio.ServicerContext[bytes, bytes]"], Awaitable[bytes]]


def _answers() -> dict[str, Message]:
    model, version, floats = "tiny", "1", "FP32"
    tensor = pb.ModelMetadataResponse.TensorMetadata
    infer = pb.ModelInferResponse(model_name=model, model_version=version)
    infer.outputs.add(name="y", datatype=floats, shape=[1, 4])
    infer.raw_output_contents.append(bytes(16))
    described = config.ModelConfig(name=model, platform="onnxruntime_onnx", max_batch_size=32)
    described.input.add(name="x", data_type=config.TYPE_FP32, dims=[16])
    described.output.add(name="y", data_type=config.TYPE_FP32, dims=[4])
    return {
        "ServerLive": pb.ServerLiveResponse(live=True),
        "ServerReady": pb.ServerReadyResponse(ready=True),
        "ModelReady": pb.ModelReadyResponse(ready=True),
        "ServerMetadata": pb.ServerMetadataResponse(name="ceiling", version="1"),
        "ModelMetadata": pb.ModelMetadataResponse(
            name=model,
            versions=[version],
            platform="onnxruntime_onnx",
            inputs=[tensor(name="x", datatype=floats, shape=[-1, 16])],
            outputs=[tensor(name="y", datatype=floats, shape=[-1, 4])],
        ),
        "ModelConfig": pb.ModelConfigResponse(config=described),
        "ModelInfer": infer,
    }


class _Constant:
    """Answers every call of one method with the same bytes."""

    def __init__(self, answer: Message) -> None:
        self._answer = answer.SerializeToString()

    async def reply(self, _request: bytes, _context: object) -> bytes:
        return self._answer


class _Infer:
    """The constant with the request's id in it, by which perf_analyzer knows its request."""

    def __init__(self, answer: Message) -> None:
        self.count, self._answer = 0, answer.SerializeToString()

    async def reply(self, request: bytes, _context: object) -> bytes:
        self.count += 1
        identity = pb.ModelInferRequest.FromString(request).id.encode()
        return b"%b\x1a%c%b" % (self._answer, len(identity), identity)  # field 3, a string


class _Statistics:
    """ModelStatistics: how many ModelInfer calls there were."""

    def __init__(self, infer: _Infer) -> None:
        self._infer = infer

    async def reply(self, _request: bytes, _context: object) -> bytes:
        answer = pb.ModelStatisticsResponse()
        statistics = answer.model_stats.add(name="tiny", version="1")
        statistics.inference_count = statistics.execution_count = self._infer.count
        statistics.inference_stats.success.count = self._infer.count
        return answer.SerializeToString()


async def _serve() -> None:
    server = grpc.aio.server()
    answers = _answers()
    infer = _Infer(answers.pop("ModelInfer"))
    handlers: dict[str, Handler] = {
        name: _Constant(answer).reply for name, answer in answers.items()
    }
    handlers |= {"ModelInfer": infer.reply, "ModelStatistics": _Statistics(infer).reply}
    methods: dict[str, Any] = {
        name: grpc.unary_unary_rpc_method_handler(call) for name, call in handlers.items()
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(_SERVICE, methods)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"ceiling ready grpc=127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    try:
        uvloop.run(_serve())
    except KeyboardInterrupt:
        sys.exit(0)
