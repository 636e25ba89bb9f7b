"""The one entry to inference: every front door comes through `Inference.predict`."""

import asyncio
import time
from typing import Protocol

from server.errors import BackendError, Code, ServeError
from server.request import InferRequest, InferResponse
from server.served import ServedVersion
from server.statistics import failure_reason


class Versions(Protocol):
    """What inference needs of the registry."""

    def resolve(self, model: str, version: int | None) -> ServedVersion: ...


class Inference:
    """Answers requests. Belongs to the event loop."""

    def __init__(self, versions: Versions) -> None:
        self._versions = versions

    async def predict(self, request: InferRequest) -> InferResponse:
        """Checks the request, runs it in a batch, counts it.

        Raises:
            ServeError: every failure the client is told about.
        """
        served = self._versions.resolve(request.model, request.version)
        served.acquire()
        try:
            served.validator.check(request)
            outputs, timing = await served.batcher.submit(request)
            timing.total_s = time.monotonic() - request.arrived
            served.stats.record_success(timing)
            return InferResponse(
                served.model,
                served.version,
                request.request_id,
                outputs,
                served.artifact_id,
                timing,
            )
        except BackendError as error:
            cause = served.validator.blame(request, error)
            _record_failure(served, request, cause.code)
            raise cause from error.__cause__
        except Exception as error:  # what is no ServeError is a bug, and answered as INTERNAL
            code = error.code if isinstance(error, ServeError) else Code.INTERNAL
            _record_failure(served, request, code)
            raise
        except asyncio.CancelledError:
            _record_failure(served, request, Code.CANCELLED)
            raise
        finally:
            served.release()


def _record_failure(served: ServedVersion, request: InferRequest, code: Code) -> None:
    served.stats.record_failure(time.monotonic() - request.arrived, failure_reason(code), code)
