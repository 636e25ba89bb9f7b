"""Opens what the optimizer made, by its manifest: the one way for serving and for measuring."""

from collections.abc import Mapping
from typing import Any

from optimizer.artifact import Artifact
from optimizer.errors import Unavailable
from server.backends import format_of
from server.backends.base import Backend
from server.model_config import ExecutionConfig


def open_artifact(artifact: Artifact, threads: int) -> Backend:
    """Opens an artifact with so many compute threads.

    Raises:
        Unavailable: a provider that the artifact is made for did not start; says why.
        LoadFailed: it cannot be opened.
    """
    execution = _execution(artifact.options)
    format_ = format_of(artifact.path)
    opened = format_.open(format_.inspect(artifact.path), execution, threads, spins=threads > 1)
    if opened.fallback:
        opened.close()
        raise Unavailable(opened.fallback)
    return opened


def _execution(options: Mapping[str, Any]) -> ExecutionConfig:
    return ExecutionConfig(
        graph_level=options.get("graph_level", "all"),
        providers=tuple(options.get("providers", ("cpu",))),
        provider_options=options.get("provider_options", {}),
    )
