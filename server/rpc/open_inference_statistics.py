"""`ModelStatistics` of the Open Inference service, from what a version has counted. Pure."""

from protos.inference import grpc_service_pb2 as pb
from server.statistics import BatchTotals, DurationTotal, VersionStatistics


def model_statistics(
    model: str, version: int, statistics: VersionStatistics, memory_bytes: int
) -> pb.ModelStatistics:
    """One version's totals since it was loaded. Cache and response statistics do not apply here."""
    return pb.ModelStatistics(
        name=model,
        version=str(version),
        last_inference=statistics.last_inference_ms,
        inference_count=statistics.inference_count,
        execution_count=statistics.execution_count,
        inference_stats=pb.InferStatistics(
            success=_duration(statistics.success),
            fail=_duration(statistics.fail),
            queue=_duration(statistics.queue),
            compute_input=_duration(statistics.compute_input),
            compute_infer=_duration(statistics.compute_infer),
            compute_output=_duration(statistics.compute_output),
            cache_hit=pb.StatisticDuration(),
            cache_miss=pb.StatisticDuration(),
        ),
        batch_stats=[_batch(rows, stats) for rows, stats in sorted(statistics.batch_stats.items())],
        memory_usage=[pb.MemoryUsage(type="CPU", id=0, byte_size=memory_bytes)],
    )


def _batch(rows: int, totals: BatchTotals) -> pb.InferBatchStatistics:
    return pb.InferBatchStatistics(
        batch_size=rows,
        compute_input=_duration(totals.compute_input),
        compute_infer=_duration(totals.compute_infer),
        compute_output=_duration(totals.compute_output),
    )


def _duration(total: DurationTotal) -> pb.StatisticDuration:
    return pb.StatisticDuration(count=total.count, ns=total.ns)
