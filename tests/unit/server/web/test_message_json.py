from protos.inference import grpc_service_pb2 as pb
from protos.inference import model_config_pb2
from server.web.message_json import message_json


def test_integers_are_numbers_and_names_those_of_the_proto() -> None:
    message = pb.ModelStatistics(name="m", version="1", last_inference=2**60)
    message.inference_stats.success.count = 3
    message.batch_stats.add(batch_size=4)
    document = message_json(message)
    assert document["last_inference"] == 2**60
    assert document["inference_stats"]["success"] == {"count": 3, "ns": 0}
    assert document["batch_stats"] == [{"batch_size": 4}]


def test_enums_are_names_and_maps_objects() -> None:
    config = model_config_pb2.ModelConfig(name="m", max_batch_size=8)
    config.input.add(name="x", data_type=model_config_pb2.TYPE_FP32, dims=[-1, 3])
    config.parameters["k"].string_value = "v"
    document = message_json(config)
    assert document["input"][0]["data_type"] == "TYPE_FP32"
    assert document["input"][0]["dims"] == [-1, 3]
    assert document["parameters"] == {"k": {"string_value": "v"}}
    assert document["max_batch_size"] == 8


def test_defaults_are_written_and_unset_members_are_not() -> None:
    document = message_json(model_config_pb2.ModelConfig())
    assert document["platform"] == ""
    assert document["output"] == []
    assert "dynamic_batching" not in document


def test_bytes_are_base64() -> None:
    parameter = pb.ModelRepositoryParameter(bytes_param=b"\x00\xff")
    assert message_json(parameter) == {"bytes_param": "AP8="}
