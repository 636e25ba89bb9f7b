"""The shared-memory calls of the Open Inference service.

System shared memory works. CUDA shared memory is not offered: nothing can be registered, so its
status is empty and unregistering finds nothing to do, as on a Triton where nobody registered.
"""

from collections.abc import Sequence

from protos.inference import grpc_service_pb2 as pb
from server.errors import Unimplemented
from server.rpc.call import Method
from server.rpc.open_inference_method import method
from server.shared_memory import RegionNotFound, SharedMemoryRegions


class SharedMemoryCalls:
    """Registers regions for clients. Event loop only."""

    def __init__(self, regions: SharedMemoryRegions) -> None:
        self._regions = regions

    def methods(self) -> Sequence[Method]:
        return (
            method("SystemSharedMemoryStatus", pb.SystemSharedMemoryStatusRequest, self._status),
            method(
                "SystemSharedMemoryRegister", pb.SystemSharedMemoryRegisterRequest, self._register
            ),
            method(
                "SystemSharedMemoryUnregister",
                pb.SystemSharedMemoryUnregisterRequest,
                self._unregister,
            ),
            method("CudaSharedMemoryStatus", pb.CudaSharedMemoryStatusRequest, _cuda_status),
            method("CudaSharedMemoryRegister", pb.CudaSharedMemoryRegisterRequest, _cuda_register),
            method(
                "CudaSharedMemoryUnregister", pb.CudaSharedMemoryUnregisterRequest, _cuda_unregister
            ),
        )

    async def _status(
        self, request: pb.SystemSharedMemoryStatusRequest
    ) -> pb.SystemSharedMemoryStatusResponse:
        status = pb.SystemSharedMemoryStatusResponse.RegionStatus
        return pb.SystemSharedMemoryStatusResponse(
            regions={
                region.name: status(
                    name=region.name,
                    key=region.key,
                    offset=region.offset,
                    byte_size=region.byte_size,
                )
                for region in self._regions.status(request.name)
            }
        )

    async def _register(
        self, request: pb.SystemSharedMemoryRegisterRequest
    ) -> pb.SystemSharedMemoryRegisterResponse:
        self._regions.register(request.name, request.key, request.offset, request.byte_size)
        return pb.SystemSharedMemoryRegisterResponse()

    async def _unregister(
        self, request: pb.SystemSharedMemoryUnregisterRequest
    ) -> pb.SystemSharedMemoryUnregisterResponse:
        """An empty name means all regions."""
        if request.name:
            self._regions.unregister(request.name)
        else:
            self._regions.unregister_all()
        return pb.SystemSharedMemoryUnregisterResponse()


async def _cuda_status(
    request: pb.CudaSharedMemoryStatusRequest,
) -> pb.CudaSharedMemoryStatusResponse:
    if request.name:
        raise RegionNotFound(f"Unable to find cuda shared memory region: '{request.name}'")
    return pb.CudaSharedMemoryStatusResponse()


async def _cuda_register(
    request: pb.CudaSharedMemoryRegisterRequest,
) -> pb.CudaSharedMemoryRegisterResponse:
    raise Unimplemented(
        f"failed to register CUDA shared memory region: '{request.name}', this server does not"
        " support CUDA shared memory; use system shared memory"
    )


async def _cuda_unregister(
    _: pb.CudaSharedMemoryUnregisterRequest,
) -> pb.CudaSharedMemoryUnregisterResponse:
    return pb.CudaSharedMemoryUnregisterResponse()
