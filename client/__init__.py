"""The Python client of Inflight: predictions, streams, and control of the server's models.

    from client import Client

    with Client("localhost:8001") as client:
        outputs = client.predict("digits", {"x": images})

`AsyncClient` is the same for asyncio. Depends on grpcio, protobuf and numpy; never on the server.
"""

from client.aio import AsyncClient
from client.errors import InferenceError
from client.retry import RetryPolicy
from client.sync import Client
from client.values import Prediction, Request, Timing

__all__ = [
    "AsyncClient",
    "Client",
    "InferenceError",
    "Prediction",
    "Request",
    "RetryPolicy",
    "Timing",
]
