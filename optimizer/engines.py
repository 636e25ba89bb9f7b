"""TensorRT engines of one job: from the cache, or built in a child process."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from optimizer import assembly, stages
from optimizer.artifact import Artifact
from optimizer.candidate import Candidate
from optimizer.candidate_store import CandidateStore
from optimizer.engine_builder import BuildOrder, EngineBuilder, ProviderBuilder, TensorRtBuilder
from optimizer.engine_key import EngineKey, key_here
from optimizer.errors import PassError, Unavailable
from optimizer.goal import Goal
from optimizer.plan import PROVIDER, TENSORRT
from optimizer.shape_profile import ShapeProfile, profile_of
from optimizer.source import SourceModel
from optimizer.stage_runner import StageRunner
from optimizer.stages import Case, Original

_BUILD_S = 3600.0


@dataclass(frozen=True, slots=True)
class Way:
    """One of the ways to an engine, and the key of what it leads to."""

    builder: EngineBuilder
    key: EngineKey


class Engines:
    """Finds and builds; what it returns is safe from collection until the job ends."""

    def __init__(
        self, case: Case, stage_runner: StageRunner, store: CandidateStore, original: Original
    ) -> None:
        self._case, self._goal, self._machine = case, case.goal, store.device
        self._stages, self._store, self._original = stage_runner, store, original
        self._cache = store.engine_cache()

    def ways(self, candidate: Candidate, model: Path) -> list[Way]:
        """How an engine of a model can be had here: ONNX Runtime's provider first.

        Raises:
            Unavailable: there is no way, or nothing is known of how large inputs can get.
        """
        found: list[tuple[EngineBuilder, bool]] = []
        if self._machine.has(*PROVIDER):
            found.append((ProviderBuilder(self._case.opener), True))
        if self._machine.has(*TENSORRT):
            found.append((TensorRtBuilder(), False))
        fingerprint, profile = SourceModel(model, "onnx").fingerprint(), self._profile()
        return [
            Way(builder, self._key(candidate, fingerprint, profile, has_part))
            for builder, has_part in found
        ]

    def find(self, ways: Sequence[Way]) -> Artifact | None:
        """An engine that was built before."""
        for way in ways:
            engine = self._cache.find(way.key).engine
            if engine is not None:
                return self._store.hold(engine)
        return None

    def build(
        self,
        ways: Sequence[Way],
        candidate: Candidate,
        model: Path,
        work: Path,
        tell: Callable[[str], None],
    ) -> Artifact:
        """Builds in the first way that this machine can go; tells why it has to.

        Raises:
            Unavailable: TensorRT does not start, whatever way is taken; why.
            PassError: TensorRT cannot do it, with its own words.
            OptimizationError: as `stage.run`; or the store cannot be written.
        """
        failed: list[str] = []
        for way in ways:
            why = f"in another way: {failed[-1]}" if failed else self._cache.find(way.key).reason
            tell(f"an engine is built: {why}")
            builder = _InChild(way.builder, self._stages, self._finished(candidate))
            try:
                engine = self._cache.find_or_build(model, way.key, builder, work)
            except Unavailable as error:
                failed.append(str(error))
            else:
                return self._store.hold(engine)
        raise Unavailable("; ".join(failed))

    def _profile(self) -> ShapeProfile:
        """Batches up to the goal's, best at those that count most; lengths as the rows have them.

        Raises:
            Unavailable: a length is nobody's: no row is real.
        """
        rows = self._original.row_shapes
        observed = [{name: (1, *shape) for name, shape in rows.items()}] if rows else []
        signature, most = self._original.signature, self._goal.max_batch
        try:
            return profile_of(signature, most, observed, _best_batch(self._goal))
        except PassError as error:
            raise Unavailable(str(error)) from None

    def _key(
        self, candidate: Candidate, fingerprint: str, profile: ShapeProfile, uses_onnxruntime: bool
    ) -> EngineKey:
        return key_here(
            self._machine,
            fingerprint,
            profile,
            candidate.options["precision"],
            workspace_bytes=int(self._goal.workspace_gb * 2**30),
            uses_onnxruntime=uses_onnxruntime,
        )

    def _finished(self, candidate: Candidate) -> Callable[[Artifact], Artifact]:
        techniques = assembly.techniques_of(candidate, self._case.source)
        signature = self._original.signature

        def finished(built: Artifact) -> Artifact:
            return replace(built, techniques=techniques, signature=signature)

        return finished


class _InChild:
    """A builder that has another one build in a child process."""

    def __init__(
        self,
        builder: EngineBuilder,
        stage_runner: StageRunner,
        finished: Callable[[Artifact], Artifact],
    ) -> None:
        self._builder, self._stages, self._finished = builder, stage_runner, finished

    def build(self, order: BuildOrder) -> Artifact:
        built = self._stages.run(stages.build_engine, self._builder, order, cap_s=_BUILD_S)
        return self._finished(built)


def _best_batch(goal: Goal) -> int:
    """The batch that an engine is to be fastest at."""
    if goal.objective == "throughput":
        return goal.max_batch
    mix = goal.batch_mix if goal.objective == "mix" else {}
    return min(max(mix, key=mix.__getitem__, default=1), goal.max_batch)
