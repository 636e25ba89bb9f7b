"""Opens one version: memory check, backend, configuration check, probes, warm-up.

Everything here blocks and runs in a loader thread; nothing here knows the event loop.
"""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from protos.signature import Signature
from protos.tensors import Array
from server import profiling
from server.allocator import return_free_memory
from server.backends import Format, format_of
from server.backends.base import Backend
from server.backends.model_file import ModelFile
from server.backends.reshaped import reshaped
from server.backends.stored import format_of_artifact
from server.batch_policy import BatchSettings
from server.declared_signature import model_signature
from server.errors import LoadFailed, ServeError
from server.memory import MemoryGate
from server.model_config import ExecutionConfig, ModelConfig, VersionSource
from server.probe import Profile
from server.profiling import Probed

logger = logging.getLogger(__name__)

NICENESS = 10
"""Added to that of loading threads. On two busy cores: with 0 loading takes two thirds of the
throughput of what serves, with 10 it takes 3 %. With 19 the event loop waits up to 120 ms for the
interpreter lock that a loading thread holds while it is not scheduled (8 ms with 10)."""
_PROBE_S = 1.5  # longest a model may be measured
_PROBE_ALL_S = 40.0  # longest all models of one pass may be measured, together
_SHORTEST_PROBE_S = 0.03
_WIDE_FROM_S = 0.001  # quicker models gain nothing from more threads
_WIDE_GAIN = 0.8  # the wide session's latency must be at most so much of the narrow one's
_GPU_INSTANCES = 2  # one computes while the next batch is copied
_CPU = ("cpu",)  # as devices of a backend, and as providers

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """What the server grants one load; share the memory gate among all of them."""

    threads: int  # compute threads the server plans with, all models together
    models: int = 1  # models that load in the same pass; the more, the less each may measure
    memory: MemoryGate = field(default_factory=MemoryGate)

    @property
    def probe_s(self) -> float:
        return max(_SHORTEST_PROBE_S, min(_PROBE_S, _PROBE_ALL_S / max(1, self.models)))


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """An opened version, probed and warm. The owner closes it."""

    narrow: Backend  # the session that all instances share
    wide: Backend | None  # the same model on all planned threads, for a batch that runs alone
    instances: int  # runs of `narrow` that may be under way at once
    signature: Signature
    profile: Profile
    settings: BatchSettings
    example: Mapping[str, Array]  # one request that the model answers; empty: none was found

    def close(self) -> None:
        """Frees both backends; no run is under way or follows.

        Takes milliseconds per 100 MB: call it off the event loop.
        """
        self.narrow.close()
        if self.wide is not None:
            self.wide.close()
        return_free_memory()


def load(source: VersionSource, plan: LoadPlan) -> LoadedModel:
    """Opens a version and finds out how it is best run; takes milliseconds to minutes.

    Call it on a thread of ordinary priority: it works on low-priority threads that it starts, so
    that running requests go first.

    Raises:
        LoadFailed: with a reason an operator can act on; nothing stays open.
    """
    try:
        with ExitStack() as opened:
            loaded = _Loading(source, plan, opened).load()
            opened.pop_all()
            return loaded
    except OSError as error:
        return_free_memory()
        raise LoadFailed(f"'{source.path}' cannot be read: {error.strerror or error}") from error
    except BaseException:
        return_free_memory()
        raise


class _Loading:
    """One load under way; what it opens is closed with `opened` unless that is emptied."""

    def __init__(self, source: VersionSource, plan: LoadPlan, opened: ExitStack) -> None:
        self._source, self._plan, self._opened = source, plan, opened
        self._config: ModelConfig = source.config
        self._execution: ExecutionConfig = source.config.execution

    def load(self) -> LoadedModel:
        started = time.monotonic()
        form, path = _form(self._source)
        file = _at_low_priority(lambda: form.inspect(path))
        narrow, probed = self._placed(form, file)
        if narrow.fallback and narrow.devices == _CPU:
            self._execution = replace(self._execution, providers=_CPU)
        wide = self._wide(narrow, probed, file, form)
        load_s = time.monotonic() - started
        profile = replace(probed.profile, load_s=load_s, fallback=narrow.fallback)
        if profile.reason:
            logger.info("%s runs its requests one by one: %s", self._name, profile.reason)
        elif profile.pad_reason:
            logger.info("%s does not pad its requests: %s", self._name, profile.pad_reason)
        return LoadedModel(
            narrow,
            wide,
            self._instances(narrow),
            narrow.signature,
            profile,
            batch_settings(self._config, profile),
            probed.example,
        )

    @property
    def _name(self) -> str:
        return f"model '{self._source.model}' version {self._source.version}"

    def _placed(self, form: Format, file: ModelFile) -> tuple[Backend, Probed]:
        """The session that all instances share, and what running it showed.

        A device that starts may still fail at every run, for want of a library or of kernels for
        it: a model that the CPU answers is moved there, where that is allowed.
        """
        narrow = self._narrow(form, file)
        probed = self._probe(form, narrow, file)
        allowed = self._execution.providers
        if probed.example or narrow.devices == _CPU or not (allowed is None or "cpu" in allowed):
            return narrow, probed
        on_cpu = self._on_cpu(form, file)
        if on_cpu is None:
            return narrow, probed
        narrow.close()
        fallback = f"runs on cpu, since on {narrow.devices[0]} it fails: {probed.failure}"
        logger.warning("%s %s", self._name, fallback)
        on_cpu[0].fallback = fallback
        return on_cpu

    def _on_cpu(self, form: Format, file: ModelFile) -> tuple[Backend, Probed] | None:
        """The same on the CPU; None where that answers no example either."""
        asked, self._execution = self._execution, replace(self._execution, providers=_CPU)
        backend = self._narrow(form, file)
        probed = self._probe(form, backend, file)
        if probed.example:
            return backend, probed
        backend.close()
        self._execution = asked
        return None

    def _probe(self, form: Format, backend: Backend, file: ModelFile) -> Probed:
        clock = _clock(form, backend)
        return _at_low_priority(
            lambda: profiling.probe(backend, self._config, file, self._plan.probe_s, clock)
        )

    def _narrow(self, form: Format, file: ModelFile) -> Backend:
        """A session of the threads of one instance.

        Opened at low priority only where that starts no threads and no process: those inherit the
        priority of the thread that creates them, and they serve.
        """
        threads = self._execution.threads or file.threads or 1
        starts_nothing = threads == 1 and form.starts_nothing(self._execution)
        with self._plan.memory.admit(self._name, file.size_bytes):
            if starts_nothing:
                return _at_low_priority(lambda: self._open(form, file, threads))
            return self._open(form, file, threads)

    def _open(self, form: Format, file: ModelFile, threads: int, *, spins: bool = False) -> Backend:
        backend = form.open(file, self._execution, threads, spins=spins)
        self._opened.callback(backend.close)
        backend.signature = model_signature(self._config, backend.signature)
        return reshaped(backend, self._config)

    def _instances(self, narrow: Backend) -> int:
        """As many runs at once as there are compute threads for; a GPU is kept busy by two."""
        said = self._execution.instances or narrow.instances
        if said is not None:
            return said
        if narrow.devices != _CPU:
            return _GPU_INSTANCES
        return max(1, self._plan.threads // narrow.threads)

    def _wide(
        self, narrow: Backend, probed: Probed, file: ModelFile, form: Format
    ) -> Backend | None:
        """A session of all planned threads, where it is measured to answer a lone batch sooner.

        Opened at ordinary priority, for the sake of its threads.
        """
        planned = self._execution.threads is None and self._execution.instances is None
        on_cpu = narrow.devices == _CPU
        if not planned or not on_cpu or self._plan.threads < 2 or not probed.example:
            return None
        if probed.profile.curve[0].fastest_s < _WIDE_FROM_S:
            return None
        try:
            with self._plan.memory.admit(self._name, file.size_bytes), ExitStack() as attempt:
                # It runs only while nothing else computes, so spinning takes from nobody.
                wide = self._open(form, file, self._plan.threads, spins=True)
                attempt.callback(wide.close)
                if not _at_low_priority(lambda: _pays(wide, probed)):
                    return None
                attempt.pop_all()
                return wide
        except ServeError as error:
            logger.info("%s gets no session for lone batches: %s", self._name, error)
            return None


def _form(source: VersionSource) -> tuple[Format, Path]:
    """What is to be opened: the version's own file, or the artifact that serves in its place."""
    if source.optimized is None:
        return format_of(source.path), source.path
    artifact = source.optimized.artifact
    return format_of_artifact(artifact), artifact.path


def _clock(form: Format, backend: Backend) -> Callable[[], float]:
    """The clock that runs are timed with.

    Where they compute on the thread that calls, its own time is what a run costs, however busy
    the machine is: models load beside each other and beside what serves.
    """
    is_alone = form.is_run_by_caller and backend.threads == 1 and backend.devices == _CPU
    return time.thread_time if is_alone else time.perf_counter


def _pays(wide: Backend, probed: Probed) -> bool:
    """Whether the wide session is worth its memory; warms it up if so."""
    limit_s = probed.profile.curve[0].fastest_s * _WIDE_GAIN
    if not profiling.answers_within(wide, probed.example, limit_s):
        return False
    profiling.warm_up(wide, probed)
    return True


def batch_settings(config: ModelConfig, profile: Profile) -> BatchSettings:
    """What the operator said about batching, and where nothing was said what was measured."""
    batching = config.batching
    return BatchSettings(
        window_s=batching.window_s or 0.0,
        max_batch=profile.max_batch,
        priority_levels=batching.priority_levels,
        default_priority=batching.default_priority,
        queue=batching.queue,
        priority_queues=batching.priority_queues,
        slo_p99_s=batching.slo_p99_s,
        preserve_ordering=batching.preserve_ordering,
    )


def _at_low_priority(work: Callable[[], T]) -> T:
    """Runs work on a thread of its own that yields to serving ones, and waits for it."""
    result: Future[T] = Future()

    def run() -> None:
        lower_priority()
        try:
            result.set_result(work())
        except BaseException as error:
            result.set_exception(error)

    thread = threading.Thread(target=run, name="loading", daemon=True)
    thread.start()
    return result.result()


def lower_priority() -> None:
    """Has the calling thread yield to serving ones.

    Linux gives every thread its own niceness; elsewhere there is nothing to do.
    """
    if sys.platform == "linux":
        thread = threading.get_native_id()
        niceness = min(19, os.getpriority(os.PRIO_PROCESS, thread) + NICENESS)
        os.setpriority(os.PRIO_PROCESS, thread, niceness)
