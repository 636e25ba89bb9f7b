"""tritonclient, unchanged, against a server process: every method, in its three manners."""

import asyncio
import json
import queue
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from tritonclient.utils import InferenceServerException, shared_memory

from protos.health import health_pb2
from protos.inference import grpc_service_pb2 as pb
from protos.tensors import Array
from tests import models
from tests.integration.server_process import serving, write_models

LABELS_CONFIG = """
name: "labels"
backend: "onnxruntime"
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: [ 16 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 4 ] label_filename: "labels.txt" }
dynamic_batching { max_queue_delay_microseconds: 200 priority_levels: 3 default_priority_level: 2 }
"""


MODELS = {
    "add_sub/1/model.onnx": models.add_sub("INT32"),
    "mlp/1/model.onnx": models.mlp(),
    "text/1/model.onnx": models.identity("BYTES"),
    "labels/1/model.onnx": models.mlp(),
    "labels/config.pbtxt": LABELS_CONFIG.encode(),
    "labels/labels.txt": b"cat\ndog\nbird\nfish\n",
    "broken/1/model.onnx": b"not a model",
}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server process with control "explicit", its models loaded by request as Triton's are."""
    folder = tmp_path_factory.mktemp("server")
    write_models(folder / "models", MODELS)
    with serving(folder, "--load-control=explicit") as address:
        with triton.InferenceServerClient(address) as client:
            for model in ("add_sub", "mlp", "text", "labels"):
                client.load_model(model)
        yield address


@pytest.fixture
def client(address: str) -> Iterator[Any]:
    with triton.InferenceServerClient(address) as client:
        yield client


def tensor(name: str, array: Array, datatype: str, module: Any = triton) -> Any:
    given = module.InferInput(name, list(array.shape), datatype)
    given.set_data_from_numpy(array)
    return given


def numbers(start: int = 0, batch: int = 1) -> Array:
    return np.arange(start, start + 16 * batch, dtype=np.int32).reshape(batch, 16)


def add_sub_inputs(start: int = 0, batch: int = 1) -> list[Any]:
    return [
        tensor("INPUT0", numbers(start, batch), "INT32"),
        tensor("INPUT1", numbers(1, batch), "INT32"),
    ]


def mlp_input(batch: int = 1) -> Any:
    return tensor("x", np.ones((batch, 16), np.float32), "FP32")


def refused(code: str, text: str, call: Callable[[], object]) -> None:
    with pytest.raises(InferenceServerException) as error:
        call()
    assert text in error.value.message()
    assert error.value.status() == f"StatusCode.{code}"


def test_the_server_and_its_models_say_what_they_are(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("mlp")
    assert client.is_model_ready("mlp", "1")
    assert not client.is_model_ready("mlp", "2")
    assert not client.is_model_ready("nobody")
    server = client.get_server_metadata()
    assert server.name == "inflight"
    assert "statistics" in server.extensions
    model = client.get_model_metadata("mlp", as_json=True)
    assert model["platform"] == "onnxruntime_onnx"
    assert model["versions"] == ["1"]
    assert model["inputs"] == [{"name": "x", "datatype": "FP32", "shape": ["-1", "16"]}]
    refused("NOT_FOUND", "Request for unknown model", lambda: client.get_model_metadata("nobody"))


def test_the_configuration_satisfies_perf_analyzer(client: Any) -> None:
    config = client.get_model_config("labels").config
    assert config.max_batch_size == 8
    assert list(config.input[0].dims) == [16]
    assert config.output[0].label_filename == "labels.txt"
    assert config.dynamic_batching.max_queue_delay_microseconds == 200
    assert config.dynamic_batching.priority_levels == 3
    assert not config.model_transaction_policy.decoupled
    assert config.instance_group[0].count >= 1


@pytest.mark.parametrize("batch", [1, 5])
def test_infer_answers_raw_outputs_and_echoes_the_id(client: Any, batch: int) -> None:
    result = client.infer("add_sub", add_sub_inputs(3, batch), request_id="r-7")
    assert np.array_equal(result.as_numpy("OUTPUT0"), numbers(3, batch) + numbers(1, batch))
    assert np.array_equal(result.as_numpy("OUTPUT1"), numbers(3, batch) - numbers(1, batch))
    response = result.get_response()
    assert (response.id, response.model_name, response.model_version) == ("r-7", "add_sub", "1")


def test_only_requested_outputs_come_back(client: Any) -> None:
    outputs = [triton.InferRequestedOutput("OUTPUT1")]
    result = client.infer("add_sub", add_sub_inputs(), model_version="1", outputs=outputs)
    assert [output.name for output in result.get_response().outputs] == ["OUTPUT1"]


def test_strings_travel_both_ways(client: Any) -> None:
    texts = np.array([[b"a", b"", "\u00e9".encode(), b"x\0y"]], dtype=object)
    result = client.infer("text", [tensor("x", texts, "BYTES")])
    assert result.as_numpy("y").tolist() == texts.tolist()


def test_typed_contents_are_understood(address: str) -> None:
    """tritonclient sends raw only; KServe's and hand-written clients send these."""
    request = pb.ModelInferRequest(model_name="mlp")
    given = request.inputs.add(name="x", datatype="FP32", shape=[1, 16])
    given.contents.fp32_contents.extend([1.0] * 16)
    response = call(address, "ModelInfer", request, pb.ModelInferResponse)
    assert len(response.raw_output_contents[0]) == 16


def test_classes_come_with_their_labels(client: Any) -> None:
    outputs = [triton.InferRequestedOutput("y", class_count=2)]
    plain = client.infer("labels", [mlp_input(3)]).as_numpy("y")
    classes = client.infer("labels", [mlp_input(3)], outputs=outputs).as_numpy("y")
    assert classes.shape == (3, 2)
    value, index, label = classes[0][0].decode().split(":")
    assert int(index) == plain[0].argmax()
    assert float(value) == pytest.approx(plain[0].max(), abs=1e-6)
    assert label == ["cat", "dog", "bird", "fish"][int(index)]


def test_request_parameters(client: Any) -> None:
    client.infer("labels", [mlp_input()], priority=1, timeout=10_000_000)
    client.infer("mlp", [mlp_input()], sequence_id=4, sequence_start=True, sequence_end=True)
    client.infer("mlp", [mlp_input()], parameters={"mine": "x"})


def test_refusals_have_tritons_codes_and_texts(client: Any) -> None:
    short = tensor("x", np.ones((1, 15), np.float32), "FP32")
    doubles = tensor("x", np.ones((1, 16), np.float64), "FP64")
    other = tensor("z", np.ones((1, 16), np.float32), "FP32")
    refused(
        "NOT_FOUND",
        "Request for unknown model: 'nobody' is not found",
        lambda: client.infer("nobody", [mlp_input()]),
    )
    refused(
        "INVALID_ARGUMENT",
        "unexpected shape for input 'x' for model 'mlp'. Expected [-1,16], got [1,15]",
        lambda: client.infer("mlp", [short]),
    )
    refused(
        "INVALID_ARGUMENT",
        "inference input 'x' data-type is 'FP64', but model 'mlp' expects 'FP32'",
        lambda: client.infer("mlp", [doubles]),
    )
    refused(
        "INVALID_ARGUMENT",
        "unexpected inference input 'z' for model 'mlp'",
        lambda: client.infer("mlp", [other]),
    )
    refused(
        "INVALID_ARGUMENT",
        "version should be an integral value > 0",
        lambda: client.infer("mlp", [mlp_input()], model_version="x"),
    )


def test_asynchronous_calls_of_the_synchronous_client(client: Any) -> None:
    answers: queue.Queue[tuple[int, Any, Any]] = queue.Queue()
    for start in range(8):

        def answered(result: Any, error: Any, start: int = start) -> None:
            answers.put((start, result, error))

        client.async_infer("add_sub", add_sub_inputs(start), answered)
    for _ in range(8):
        start, result, error = answers.get(timeout=30)
        assert error is None
        assert np.array_equal(result.as_numpy("OUTPUT1"), numbers(start) - numbers(1))


def test_a_stream_answers_in_order_and_survives_errors(client: Any) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for start in range(20):
        model = "nobody" if start == 7 else "add_sub"
        client.async_stream_infer(
            model,
            add_sub_inputs(start),
            request_id=str(start),
            enable_empty_final_response=start % 2 == 0,
        )
    for start in range(20):
        result, error = answers.get(timeout=30)
        if start == 7:
            assert "Request for unknown model: 'nobody' is not found" in error.message()
            continue
        assert error is None
        response = result.get_response()
        assert response.id == str(start)
        assert response.parameters["triton_final_response"].bool_param
        assert np.array_equal(result.as_numpy("OUTPUT1"), numbers(start) - numbers(1))
    client.stop_stream()
    assert answers.empty()


def test_a_stream_ends_at_the_first_error_where_the_client_asks_for_that(client: Any) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(
        lambda result, error: answers.put((result, error)),
        headers={"triton_grpc_error": "true"},
    )
    client.async_stream_infer("nobody", add_sub_inputs())
    _, error = answers.get(timeout=30)
    assert error.status() == "StatusCode.NOT_FOUND"
    client.stop_stream(cancel_requests=True)


async def test_the_asyncio_client(address: str) -> None:
    async with triton_aio.InferenceServerClient(address) as client:
        assert await client.is_server_ready()
        assert (await client.get_model_metadata("mlp")).name == "mlp"
        assert (await client.get_model_config("mlp")).config.max_batch_size >= 1
        results = await asyncio.gather(
            *(client.infer("add_sub", add_sub_inputs(start)) for start in range(16))
        )
        for start, result in enumerate(results):
            assert np.array_equal(result.as_numpy("OUTPUT1"), numbers(start) - numbers(1))
        with pytest.raises(InferenceServerException, match="unknown model"):
            await client.infer("nobody", add_sub_inputs())


async def test_a_stream_of_the_asyncio_client(address: str) -> None:
    async def requests() -> Any:
        for start in range(5):
            yield {
                "model_name": "add_sub" if start != 2 else "nobody",
                "inputs": add_sub_inputs(start),
                "request_id": str(start),
            }

    seen = []
    async with triton_aio.InferenceServerClient(address) as client:
        async for result, error in client.stream_infer(requests()):
            seen.append("error" if error else result.get_response().id)
    assert seen == ["0", "1", "error", "3", "4"]


@pytest.fixture
def segment() -> Iterator[tuple[str, Any]]:
    """A segment of 256 bytes, as a client makes it: its key and its handle."""
    key = f"/inflight-test-{uuid.uuid4().hex}"
    handle = shared_memory.create_shared_memory_region("region", key, 256)
    yield key, handle
    shared_memory.destroy_shared_memory_region(handle)


def test_tensors_travel_through_shared_memory(client: Any, segment: tuple[str, Any]) -> None:
    key, handle = segment
    shared_memory.set_shared_memory_region(handle, [numbers(5), numbers(1)])
    client.register_system_shared_memory("region", key, 256)
    status = client.get_system_shared_memory_status(as_json=True)["regions"]["region"]
    assert (status["key"], status["byte_size"]) == (key, "256")
    inputs = [triton.InferInput(name, [1, 16], "INT32") for name in ("INPUT0", "INPUT1")]
    inputs[0].set_shared_memory("region", 64)
    inputs[1].set_shared_memory("region", 64, offset=64)
    output = triton.InferRequestedOutput("OUTPUT0")
    output.set_shared_memory("region", 64, offset=128)
    result = client.infer("add_sub", inputs, outputs=[output])
    written = shared_memory.get_contents_as_numpy(handle, np.int32, [1, 16], offset=128)
    assert np.array_equal(written, numbers(5) + numbers(1))
    assert list(result.get_output("OUTPUT0").shape) == [1, 16]
    refused(
        "ALREADY_EXISTS",
        "shared memory region 'region' already in manager",
        lambda: client.register_system_shared_memory("region", key, 256),
    )
    output.set_shared_memory("region", 60, offset=128)
    refused(
        "INTERNAL",
        "shared memory size specified with the request for output 'OUTPUT0' (60 bytes) should be"
        " at least 64 bytes",
        lambda: client.infer("add_sub", inputs, outputs=[output]),
    )
    client.unregister_system_shared_memory("region")
    assert not client.get_system_shared_memory_status().regions
    refused(
        "NOT_FOUND",
        "Unable to find shared memory region: 'region'",
        lambda: client.infer("add_sub", inputs),
    )
    refused(
        "INTERNAL",
        "Unable to open shared memory region: '/nobody'",
        lambda: client.register_system_shared_memory("region", "/nobody", 256),
    )


def test_what_is_not_offered_says_so(client: Any) -> None:
    assert not client.get_cuda_shared_memory_status().regions
    client.unregister_cuda_shared_memory()
    refused(
        "UNIMPLEMENTED",
        "does not support CUDA shared memory",
        lambda: client.register_cuda_shared_memory("c", b"", 0, 64),
    )
    refused("UNIMPLEMENTED", "no trace settings", client.get_trace_settings)
    refused(
        "UNIMPLEMENTED",
        "no trace settings",
        lambda: client.update_trace_settings(settings={"trace_level": "OFF"}),
    )


def test_log_settings_are_read_and_written(client: Any) -> None:
    before = client.get_log_settings(as_json=True)["settings"]
    assert before["log_info"] == {"bool_param": True}
    changed = client.update_log_settings({"log_info": False, "log_verbose_level": 1})
    assert not changed.settings["log_info"].bool_param
    assert client.get_log_settings().settings["log_verbose_level"].uint32_param == 1
    client.update_log_settings({"log_info": True, "log_verbose_level": 0})
    assert client.get_log_settings(as_json=True)["settings"] == before
    refused(
        "UNIMPLEMENTED",
        "log file location can not be updated",
        lambda: client.update_log_settings({"log_file": "/tmp/elsewhere"}),
    )


def test_statistics_count_requests_rows_and_batches(client: Any) -> None:
    def stats() -> Any:
        return client.get_inference_statistics("mlp").model_stats[0]

    before = stats()
    for batch in (1, 3):
        client.infer("mlp", [mlp_input(batch)])
    after = stats()
    assert (after.name, after.version) == ("mlp", "1")
    assert after.inference_count - before.inference_count == 4
    assert after.execution_count - before.execution_count == 2
    assert after.inference_stats.success.count - before.inference_stats.success.count == 2
    assert after.inference_stats.compute_infer.ns > before.inference_stats.compute_infer.ns
    assert after.last_inference > 0
    assert {3} <= {batch.batch_size for batch in after.batch_stats}
    everything = client.get_inference_statistics()
    assert {entry.name for entry in everything.model_stats} >= {"mlp", "add_sub"}
    refused(
        "NOT_FOUND",
        "Request for unknown model",
        lambda: client.get_inference_statistics("nobody"),
    )


def index(client: Any) -> dict[tuple[str, str], str]:
    models = client.get_model_repository_index().models
    return {(model.name, model.version): model.state for model in models}


def test_models_are_loaded_and_unloaded_by_request(client: Any) -> None:
    assert index(client)["mlp", "1"] == "READY"
    client.unload_model("mlp", unload_dependents=True)
    assert not client.is_model_ready("mlp")
    refused("UNAVAILABLE", "'mlp'", lambda: client.infer("mlp", [mlp_input()]))
    client.load_model("mlp")
    client.infer("mlp", [mlp_input()])
    with pytest.raises(InferenceServerException):
        client.load_model("broken")
    broken = next(m for m in client.get_model_repository_index().models if m.name == "broken")
    assert broken.state == "UNAVAILABLE"
    assert broken.reason


def test_a_load_may_bring_its_own_configuration_and_files(client: Any) -> None:
    config = {
        "backend": "onnxruntime",
        "max_batch_size": 4,
        "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [16]}],
        "output": [{"name": "y", "data_type": "TYPE_FP32", "dims": [4]}],
    }
    client.load_model("mlp", config=json.dumps(config))
    assert client.get_model_config("mlp").config.max_batch_size == 4
    content = models.add_sub("FP32", 3)
    client.load_model("brought", config="{}", files={"file:1/model.onnx": content})
    names = [given.name for given in client.get_model_metadata("brought").inputs]
    assert names == ["INPUT0", "INPUT1"]
    client.unload_model("brought")
    client.load_model("mlp")
    refused(
        "INVALID_ARGUMENT",
        "config",
        lambda: client.load_model("brought", files={"file:1/model.onnx": content}),
    )


def test_kserves_form_of_a_load_is_understood(address: str, client: Any) -> None:
    """Its message has the model's name where Triton's has the repository's."""
    unload = pb.RepositoryModelUnloadRequest(repository_name="text")
    call(address, "RepositoryModelUnload", unload, pb.RepositoryModelUnloadResponse)
    assert not client.is_model_ready("text")
    load = pb.RepositoryModelLoadRequest(repository_name="text")
    call(address, "RepositoryModelLoad", load, pb.RepositoryModelLoadResponse)
    assert client.is_model_ready("text")


def call(address: str, method: str, request: Any, response_type: Any) -> Any:
    with grpc.insecure_channel(address) as channel:
        path = f"/inference.GRPCInferenceService/{method}"
        return channel.unary_unary(path, type(request).SerializeToString, response_type.FromString)(
            request, timeout=30
        )


def test_a_request_that_is_no_message_is_refused(address: str) -> None:
    with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as error:
        infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer", bytes, bytes)
        infer(b"\xff", timeout=30)
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_health_knows_the_server_its_services_and_its_models(address: str) -> None:
    def health(service: str) -> int:
        with grpc.insecure_channel(address) as channel:
            check = channel.unary_unary(
                "/grpc.health.v1.Health/Check",
                health_pb2.HealthCheckRequest.SerializeToString,
                health_pb2.HealthCheckResponse.FromString,
            )
            request = health_pb2.HealthCheckRequest(service=service)
            return int(check(request, timeout=30).status)

    services = ["inference.GRPCInferenceService", "inflight.v1.Prediction", "inflight.v1.Models"]
    for name in ("", "mlp", *services):
        assert health(name) == health_pb2.HealthCheckResponse.SERVING
    assert health("broken") == health_pb2.HealthCheckResponse.NOT_SERVING
    with pytest.raises(grpc.RpcError) as error:
        health("nobody")
    assert error.value.code() is grpc.StatusCode.NOT_FOUND


def test_a_watch_sees_a_model_go_and_come_back(address: str, client: Any) -> None:
    with grpc.insecure_channel(address) as channel:
        watch = channel.unary_stream(
            "/grpc.health.v1.Health/Watch",
            health_pb2.HealthCheckRequest.SerializeToString,
            health_pb2.HealthCheckResponse.FromString,
        )(health_pb2.HealthCheckRequest(service="add_sub"), timeout=60)
        states = health_pb2.HealthCheckResponse
        assert next(watch).status == states.SERVING
        client.unload_model("add_sub")
        assert next(watch).status == states.NOT_SERVING
        client.load_model("add_sub")
        assert next(watch).status == states.SERVING
        watch.cancel()


def test_grpcs_own_reflection_client_finds_the_services(address: str) -> None:
    with grpc.insecure_channel(address) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        services: Sequence[str] = list(database.get_services())
        pool = DescriptorPool(database)
        service = pool.FindServiceByName("inference.GRPCInferenceService")
        assert len(service.methods) == 20
        message = pool.FindMessageTypeByName("inflight.v1.PredictRequest")
        assert "request_id" in message.fields_by_name
    assert list(services) == sorted(services)
    assert "inflight.v1.Models" in services


def test_open_streams_do_not_keep_a_server_from_ending(tmp_path: Path) -> None:
    """It is given far more time to drain than `serving` waits for its end."""
    write_models(tmp_path / "models", {"mlp/1/model.onnx": models.mlp()})
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    # With a lame duck the news and the end of the stream come apart: gRPC's blocking client may
    # drop a message that it is not waiting for when the end arrives.
    with serving(tmp_path, "--drain-s=3600", "--lame-duck-s=0.5") as address:
        client = triton.InferenceServerClient(address)
        client.start_stream(lambda result, error: answers.put((result, error)))
        client.async_stream_infer("mlp", [mlp_input()])
        assert answers.get(timeout=30)[1] is None
        channel = grpc.insecure_channel(address)
        watch = channel.unary_stream(
            "/grpc.health.v1.Health/Watch",
            health_pb2.HealthCheckRequest.SerializeToString,
            health_pb2.HealthCheckResponse.FromString,
        )(health_pb2.HealthCheckRequest(), timeout=60)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        # Read while the server ends: gRPC drops what is unread when the connection closes.
        states: list[int] = []
        reader = threading.Thread(target=lambda: states.extend(r.status for r in watch))
        reader.start()
    reader.join(60)
    assert states == [health_pb2.HealthCheckResponse.NOT_SERVING]
    assert answers.get(timeout=30)[1].status() == "StatusCode.UNAVAILABLE"
    channel.close()
    client.close()
