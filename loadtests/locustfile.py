"""Users of the native protocol for locust. Started by `make load`, or by hand.

    locust -f loadtests/locustfile.py --host 127.0.0.1:8001

Each user sends one row after the other to the model of INFLIGHT_LOAD_MODEL (default: tiny). Beside
the client's latency the statistics show two more rows, "server queue" and "server compute": where
the server says the time of the same requests went.
"""

import os
import time
from typing import Any

import grpc.experimental.gevent
import numpy as np
from locust import User, task

from client import Client, InferenceError, Prediction, RetryPolicy

# gRPC's own threads must wait through gevent, or every user would block all others.
grpc.experimental.gevent.init_gevent()

MODEL = os.environ.get("INFLIGHT_LOAD_MODEL", "tiny")
_WIDTHS = {"tiny": 16, "mlp": 256}


class Caller(User):
    """One caller that sends its next request when the last is answered."""

    def on_start(self) -> None:
        address = (self.host or "127.0.0.1:8001").removeprefix("http://")
        self._client = Client(address, timeout_s=30, retry=RetryPolicy(max_attempts=1))
        self._x = np.random.default_rng().random((1, _WIDTHS[MODEL]), np.float32)

    def on_stop(self) -> None:
        self._client.close()

    @task
    def predict(self) -> None:
        began = time.perf_counter()
        try:
            prediction = self._client.infer(MODEL, {"x": self._x}, explain=True)
        except InferenceError as error:
            self._report(began, 0, error)
            return
        size = sum(output.nbytes for output in prediction.outputs.values())
        self._report(began, size, None)
        self._report_server(prediction)

    def _report(self, began: float, size: int, error: InferenceError | None) -> None:
        self.environment.events.request.fire(
            request_type="client",
            name=f"Predict {MODEL}",
            response_time=(time.perf_counter() - began) * 1e3,
            response_length=size,
            exception=error,
            context={},
        )

    def _report_server(self, prediction: Prediction) -> None:
        """Logged beside the requests, not as requests: locust's totals count each one once."""
        stats: Any = self.environment.stats
        if prediction.timing is None:
            return
        stages = {
            "server queue": prediction.timing.queue_s,
            "server compute": prediction.timing.compute_s,
        }
        for stage, seconds in stages.items():
            stats.get(f"Predict {MODEL}", stage).log(seconds * 1e3, 0)
