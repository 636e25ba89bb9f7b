"""`inflight.v1.Optimization`: jobs that make models faster, and which form of a model serves."""

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

from optimizer.job import Job
from protos import optimization_pb2 as pb
from server.errors import InvalidRequest
from server.optimization import Optimization
from server.rpc import optimization_messages as messages
from server.rpc.call import Call, Method, Send, Stream, Unary
from server.rpc.messages import parse
from server.served import ServedVersion

logger = logging.getLogger(__name__)

_SERVICE = "/inflight.v1.Optimization/"
_LIST_LIMIT = 100


class OptimizationService:
    """The optimization service. Event loop only."""

    def __init__(self, optimization: Optimization) -> None:
        self._optimization = optimization

    def methods(self) -> Sequence[Method]:
        return (
            Unary(_SERVICE + "Optimize", self.optimize),
            Unary(_SERVICE + "GetOptimization", self.get_optimization),
            Stream(_SERVICE + "WatchOptimization", self.watch_optimization),
            Unary(_SERVICE + "ListOptimizations", self.list_optimizations),
            Unary(_SERVICE + "CancelOptimization", self.cancel_optimization),
            Unary(_SERVICE + "Promote", self.promote),
            Unary(_SERVICE + "RollBack", self.roll_back),
        )

    async def optimize(self, call: Call, data: bytes) -> bytes:
        request = messages.to_request(parse(pb.OptimizeRequest, data))
        job = await self._optimization.submit(request)
        logger.info("%s: asked for by %s: %s", job.id, call.peer, request)
        return pb.OptimizeResponse(job=self._message(job)).SerializeToString()

    async def get_optimization(self, _: Call, data: bytes) -> bytes:
        job = await self._optimization.get(parse(pb.GetOptimizationRequest, data).id)
        return pb.GetOptimizationResponse(job=self._message(job)).SerializeToString()

    async def watch_optimization(self, _: Call, requests: AsyncIterator[bytes], send: Send) -> None:
        async for data in requests:
            job_id = parse(pb.WatchOptimizationRequest, data).id
            async with aclosing(self._optimization.watch(job_id)) as states:
                async for job in states:
                    message = pb.WatchOptimizationResponse(job=self._message(job))
                    await send(message.SerializeToString())
            return

    async def list_optimizations(self, _: Call, data: bytes) -> bytes:
        request = parse(pb.ListOptimizationsRequest, data)
        jobs = await self._optimization.jobs(request.model, request.limit or _LIST_LIMIT)
        found = [self._message(job, is_whole=False) for job in jobs]
        return pb.ListOptimizationsResponse(jobs=found).SerializeToString()

    async def cancel_optimization(self, call: Call, data: bytes) -> bytes:
        request = parse(pb.CancelOptimizationRequest, data)
        job = await self._optimization.cancel(request.id, f"cancelled by {call.peer}")
        return pb.CancelOptimizationResponse(job=self._message(job)).SerializeToString()

    async def promote(self, call: Call, data: bytes) -> bytes:
        request = parse(pb.PromoteRequest, data)
        version = _version(request.model, request.version)
        served = await self._optimization.promote(request.model, version, request.id)
        _log_form("promoted", served, call)
        return pb.PromoteResponse(served=messages.served_message(served)).SerializeToString()

    async def roll_back(self, call: Call, data: bytes) -> bytes:
        request = parse(pb.RollBackRequest, data)
        version = _version(request.model, request.version)
        served = await self._optimization.roll_back(request.model, version)
        _log_form("rolled back", served, call)
        return pb.RollBackResponse(served=messages.served_message(served)).SerializeToString()

    def _message(self, job: Job, *, is_whole: bool = True) -> pb.OptimizationJob:
        serving = self._optimization.serving(job.model, job.version)
        position = self._optimization.position(job.id)
        return messages.job_message(job, serving, position, is_whole=is_whole)


def _log_form(what: str, served: ServedVersion, call: Call) -> None:
    logger.info(
        "model '%s' version %d: %s by %s, '%s' serves",
        *(served.model, served.version, what, call.peer, served.artifact_id),
    )


def _version(model: str, version: int) -> int | None:
    if not model:
        raise InvalidRequest("the request names no model")
    if version < 0:
        raise InvalidRequest(f"version: expected a positive number or 0 for any, got {version}")
    return version or None
