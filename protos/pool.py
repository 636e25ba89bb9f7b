"""The descriptor pool of the protocols that are not ours.

`inference` (Open Inference Protocol), `grpc.health.v1` and `grpc.reflection.*` are defined by
other packages too (tritonclient, grpcio-health-checking), and protobuf's default pool refuses a
second definition of a symbol. Kept in a pool of their own, our stubs and theirs live in one
process, imported in either order. Our own package `inflight.v1` uses the default pool.
"""

from google.protobuf.descriptor_pool import DescriptorPool

POOL = DescriptorPool()
