"""The shared memory extensions over gRPC: registering, listing and forgetting regions.

Source: Triton's system shared memory and CUDA shared memory extensions, "GRPC".
"""

from __future__ import annotations

from trivet_protocol_kserve_v2.codec.shared_memory import SharedMemory
from trivet_protocol_kserve_v2.proto import grpc_service_pb2 as pb


class SharedMemoryMethods:
    """Named for the RPCs, in Python's spelling; each takes the request message and returns the response message."""

    def __init__(self, memory: SharedMemory) -> None:
        self._memory = memory

    async def system_status(self, request: pb.SystemSharedMemoryStatusRequest) -> pb.SystemSharedMemoryStatusResponse:
        response = pb.SystemSharedMemoryStatusResponse()
        for region in self._memory.status("system", request.name):
            status = response.regions[region.name]
            status.name, status.byte_size = region.name, region.byte_size
            # HTTP takes keys that are not UTF-8, as names of files need not be.
            status.key = region.details["key"].encode("utf-8", "backslashreplace")
            status.offset = region.details["offset"]
        return response

    async def system_register(
        self, request: pb.SystemSharedMemoryRegisterRequest
    ) -> pb.SystemSharedMemoryRegisterResponse:
        details = {"key": request.key, "offset": request.offset}
        self._memory.register("system", request.name, request.byte_size, details)
        return pb.SystemSharedMemoryRegisterResponse()

    async def system_unregister(
        self, request: pb.SystemSharedMemoryUnregisterRequest
    ) -> pb.SystemSharedMemoryUnregisterResponse:
        self._memory.unregister("system", request.name)
        return pb.SystemSharedMemoryUnregisterResponse()

    async def cuda_status(self, request: pb.CudaSharedMemoryStatusRequest) -> pb.CudaSharedMemoryStatusResponse:
        response = pb.CudaSharedMemoryStatusResponse()
        for region in self._memory.status("cuda", request.name):
            status = response.regions[region.name]
            status.name, status.byte_size = region.name, region.byte_size
            status.device_id = region.details["device_id"]
        return response

    async def cuda_register(self, request: pb.CudaSharedMemoryRegisterRequest) -> pb.CudaSharedMemoryRegisterResponse:
        details = {"raw_handle": request.raw_handle, "device_id": request.device_id}
        self._memory.register("cuda", request.name, request.byte_size, details)
        return pb.CudaSharedMemoryRegisterResponse()

    async def cuda_unregister(
        self, request: pb.CudaSharedMemoryUnregisterRequest
    ) -> pb.CudaSharedMemoryUnregisterResponse:
        self._memory.unregister("cuda", request.name)
        return pb.CudaSharedMemoryUnregisterResponse()
