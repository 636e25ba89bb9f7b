"""Builds every object, starts them in order, stops them in reverse. The one wiring.

Life: ports are bound first (a port in use ends the start at once), then models load while health
answers NOT_SERVING, then the ready line. SIGTERM: health says NOT_SERVING at once; for the lame
duck period calls are still accepted; then new ones are refused and accepted ones finish.
"""

import asyncio
import logging
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from optimizer.pipeline import optimize
from server.backends.opener import open_artifact
from server.heartbeat import Heartbeat
from server.inference import Inference
from server.job_runner import Optimize
from server.loader import LoadPlan, load
from server.memory import MemoryGate
from server.metrics import Metrics, VersionState, distribution_version
from server.model_config import VersionSource
from server.model_versions import ModelState
from server.optimization import Optimization
from server.registry import Registry
from server.repository import Repository
from server.rpc.call import Service
from server.rpc.control import ModelsService
from server.rpc.health import SERVER, HealthService, HealthTable
from server.rpc.open_inference import OpenInferenceService
from server.rpc.open_inference_settings import LogSettings
from server.rpc.optimization import OptimizationService
from server.rpc.predict import PredictionService
from server.rpc.reflection import ReflectionService
from server.served import ServedVersion
from server.settings import ServeSettings
from server.shared_memory import SharedMemoryRegions
from server.slots import ComputeSlots
from server.statistics_book import StatisticsBook
from server.transport.grpcio import GrpcioTransport
from server.web.dashboard import Dashboard
from server.web.gateway import Gateway
from server.web.listener import HttpListener
from server.web.optimize import OptimizationApi

logger = logging.getLogger(__name__)

_SERVICES = (
    "inference.GRPCInferenceService",
    "inflight.v1.Prediction",
    "inflight.v1.Models",
    "inflight.v1.Optimization",
)
_LOADS_AT_ONCE = 2
_GIVEN_UP = 8  # loads that may hang before others wait for a thread


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the server listens: host:port each."""

    grpc: str
    http: str


class App:
    """The server. Belongs to the event loop it is made on."""

    def __init__(
        self, settings: ServeSettings, repository: Repository, optimize: Optimize = optimize
    ) -> None:
        self._settings = settings
        self._slots = ComputeSlots(settings.threads)
        self._book = StatisticsBook()
        self._heartbeat = Heartbeat(settings.hang_timeout_s)
        self._memory = MemoryGate()
        # A load that was given up on holds its thread for as long as it hangs.
        self._loaders = ThreadPoolExecutor(_LOADS_AT_ONCE + _GIVEN_UP, thread_name_prefix="load")
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_started = self._is_stopping = False
        self.registry = Registry(
            repository, self._open, settings.load_control, loads_at_once=_LOADS_AT_ONCE
        )
        self.inference = Inference(self.registry)
        self.optimization = Optimization(
            self.registry, repository, settings, optimize=optimize, opener=open_artifact
        )
        self._health = HealthTable()
        self._models = ModelsService(self.registry)
        self._optimization = OptimizationService(self.optimization)
        self._prediction = PredictionService(self.inference)
        self._metrics = Metrics(
            CollectorRegistry(),
            self._book,
            self._states,
            self.optimization.figures,
            with_triton_names=settings.metrics_compat == "triton",
        )
        self._open_inference = OpenInferenceService(
            inference=self.inference,
            registry=self.registry,
            health=self._health,
            regions=SharedMemoryRegions(),
            logs=LogSettings(),
            server_version=distribution_version("inflight"),
        )
        self._transport = GrpcioTransport(self._services(), settings.max_message_bytes)
        gateway = Gateway(self._open_inference, self._metrics, settings.max_message_bytes)
        dashboard = Dashboard(self.registry, distribution_version("inflight"))
        pages = [*dashboard.routes(), *OptimizationApi(self.optimization).routes()]
        self._http = HttpListener(gateway.application(pages), settings.drain_s)

    @property
    def is_ready(self) -> bool:
        """Started, not stopping, and no model that serves has an instance in trouble."""
        return (
            self._is_started
            and not self._is_stopping
            and not any(served.problem for served in self.registry.served())
        )

    async def start(self) -> Addresses:
        """Listens, then loads what is to be loaded; returns when each model serves or has failed.

        Raises:
            SettingsError: an address cannot be listened on.
            RepositoryError: the repository cannot be read.
        """
        settings = self._settings
        self._report_health()
        self.registry.subscribe(self._model_changed)
        self.registry.subscribe(self.optimization.models_changed)
        self.registry.follow(self.optimization.version_loaded)
        grpc_port = self._transport.bind(settings.host, settings.grpc_port)
        http_port = await self._http.start(settings.host, settings.http_port)
        await self._transport.start()
        self._own(self._heartbeat.run())
        await self.registry.start()
        self._is_started = True
        for status in self.registry.index():  # those that failed have not reported themselves
            self._health.set(status.model, self.registry.is_ready(status.model))
        self._report_health()
        if settings.load_control == "poll":
            self._own(self._poll())
        self._own(self.optimization.run())
        return Addresses(f"{settings.host}:{grpc_port}", f"{settings.host}:{http_port}")

    async def stop(self) -> None:
        """Lame duck, drain, unload. Accepted requests have `drain_s` seconds to finish."""
        self._is_stopping = True
        self._health.enter_graceful_shutdown()
        logger.info("not serving any more; lame duck for %g s", self._settings.lame_duck_s)
        await asyncio.gather(self.optimization.stop(), asyncio.sleep(self._settings.lame_duck_s))
        self._health.close()
        self._models.close()
        self._prediction.drain()
        self._open_inference.drain()
        await asyncio.gather(self._transport.stop(self._settings.drain_s), self._http.stop())
        await self.registry.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.optimization.close()
        self._loaders.shutdown(wait=False)
        logger.info("stopped")

    def counts(self) -> tuple[int, int]:
        """How many models serve, and how many were to be loaded and do not."""
        return self.registry.counts()

    def _services(self) -> Sequence[Service]:
        services = (
            self._prediction,
            self._models,
            self._optimization,
            self._open_inference,
            HealthService(self._health),
        )
        if not self._settings.reflection:
            return services
        names = {m.path.split("/")[1] for service in services for m in service.methods()}
        return (*services, ReflectionService(names))

    async def _open(self, source: VersionSource) -> ServedVersion:
        """Opens a version on a loader thread; statistics and heartbeat follow it."""
        n_loading = max(1, self.registry.n_loading)
        plan = LoadPlan(self._settings.threads, n_loading, self._memory)
        loop = asyncio.get_running_loop()
        loaded = await loop.run_in_executor(self._loaders, load, source, plan)
        served = ServedVersion(source, loaded, self._slots)
        self._book.add(served.model, served.version, served.stats)
        self._own(self._keep_totals(served))
        self._own(self._heartbeat.follow(served))
        return served

    async def _keep_totals(self, served: ServedVersion) -> None:
        await served.closed()
        self._book.close(served.model, served.version, served.stats)

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self._settings.poll_interval_s)
            await self.registry.poll_once()

    def _model_changed(self, model: str, is_ready: bool) -> None:
        if self.registry.statuses(model):
            self._health.set(model, is_ready)
        else:
            self._health.forget(model)
        self._report_health()

    def _report_health(self) -> None:
        for name in (SERVER, *_SERVICES):
            self._health.set(name, self.is_ready)

    def _states(self) -> Iterator[VersionState]:
        memory = {(s.model, s.version): s.memory_bytes for s in self.registry.served()}
        for status in self.registry.index():
            if status.version is not None:
                key = status.model, status.version
                is_ready = status.state is ModelState.READY
                yield VersionState(*key, is_ready, memory.get(key, 0))
            elif self.registry.is_wanted(status.model):
                yield VersionState(status.model, None, is_ready=False)

    def _own(self, work: Coroutine[None, None, None]) -> None:
        """Runs a background task for the life of the server; its failure is a bug and logged."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a background task failed", exc_info=error)
