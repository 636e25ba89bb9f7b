"""What a version has counted, in the protocol's message."""

from google.protobuf import text_format

from protos.inference import grpc_service_pb2 as pb
from server.errors import Code
from server.request import ReleaseReason, Timing
from server.rpc.open_inference_statistics import model_statistics
from server.statistics import VersionStatistics


def test_every_count_is_in_its_place() -> None:
    statistics = VersionStatistics(wall_clock=lambda: 1.5)
    for _ in range(2):
        statistics.record_success(Timing(1e-3, 2e-4, 1e-5, 5e-4, 2e-5))
    statistics.record_failure(0.25, "REJECTED", Code.RESOURCE_EXHAUSTED)
    statistics.record_batch(3, 2, 1e-5, 5e-4, 2e-5, ReleaseReason.IDLE_INSTANCE)
    expected = pb.ModelStatistics()
    text_format.Parse(
        """
        name: "m" version: "3" last_inference: 1500 inference_count: 3 execution_count: 1
        inference_stats {
          success { count: 2 ns: 2000000 } fail { count: 1 ns: 250000000 }
          queue { count: 2 ns: 400000 } compute_input { count: 2 ns: 20000 }
          compute_infer { count: 2 ns: 1000000 } compute_output { count: 2 ns: 40000 }
          cache_hit {} cache_miss {}
        }
        batch_stats {
          batch_size: 3 compute_input { count: 1 ns: 10000 }
          compute_infer { count: 1 ns: 500000 } compute_output { count: 1 ns: 20000 }
        }
        memory_usage { type: "CPU" byte_size: 4096 }
        """,
        expected,
    )
    assert model_statistics("m", 3, statistics, 4096) == expected
