"""One input tensor of an Open Inference request as an array, or Triton's refusal of it.

`model` is named in the refusals only. Pure functions; `decode_raw` is on the hot path.
"""

from math import prod

import numpy as np

from protos.inference import grpc_service_pb2 as pb
from protos.tensors import DTYPES, Array, Buffer, decode
from server.errors import InvalidRequest

InputTensor = pb.ModelInferRequest.InferInputTensor

# Where typed contents of a datatype are. FP16 and BF16 have no field: they travel raw only.
_CONTENTS_FIELD = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
_FIELD_DATATYPE = {  # the datatype a refusal names for each field
    "bool_contents": "BOOL",
    "int_contents": "INT32",
    "int64_contents": "INT64",
    "uint_contents": "UINT32",
    "uint64_contents": "UINT64",
    "fp32_contents": "FP32",
    "fp64_contents": "FP64",
    "bytes_contents": "BYTES",
}


def decode_raw(data: Buffer, tensor: InputTensor, model: str) -> Array:
    """An input from its bytes, as a view on them (BYTES elements are copied)."""
    try:
        return decode(data, tensor.datatype, tuple(tensor.shape))
    except ValueError as error:
        raise _bad_tensor(tensor, model, len(data), error) from None


def _bad_tensor(
    tensor: InputTensor,
    model: str,
    n_bytes: int,
    error: ValueError,
) -> InvalidRequest:
    """Triton's refusal of an input whose datatype, shape or size is wrong."""
    where = f"input '{tensor.name}' for model '{model}'"
    dtype, shape = DTYPES.get(tensor.datatype), list(tensor.shape)
    if dtype is None:
        return InvalidRequest(f"inference {where}: {error}")
    if shape and min(shape) < 0:
        dimensions = ",".join(map(str, shape))
        return InvalidRequest(
            f"All input dimensions should be specified for {where}, got [{dimensions}]"
        )
    expected = prod(shape) * dtype.itemsize
    if tensor.datatype == "BYTES" or expected == n_bytes:
        return InvalidRequest(f"input byte size mismatch for {where}: {error}")
    return InvalidRequest(
        f"input byte size mismatch for {where}. Expected {expected}, got {n_bytes}"
    )


def decode_contents(tensor: InputTensor, model: str) -> Array:
    """An input from its typed `contents`, of which exactly the datatype's field may be set."""
    where = f"'{tensor.name}' for model '{model}'"
    fields = [descriptor.name for descriptor, _ in tensor.contents.ListFields()]
    if len(fields) > 1:
        raise InvalidRequest(
            f"unexpected explicit tensor data for input tensor {where},"
            " binary data was already supplied."
        )
    expected = _CONTENTS_FIELD.get(tensor.datatype)
    if fields and fields[0] != expected:
        raise InvalidRequest(
            f"unexpected explicit tensor data for input tensor {where} of type"
            f" '{_FIELD_DATATYPE[fields[0]]}', expected datatype '{tensor.datatype}'"
        )
    values = _contents_array(tensor, expected) if expected else np.empty(0)
    return _shaped(values, tensor, model)


def _contents_array(tensor: InputTensor, field_name: str) -> Array:
    """The values of one contents field; of INT8 and its like the low bytes count."""
    values = getattr(tensor.contents, field_name)
    if field_name == "bytes_contents":
        return np.fromiter(values, object, len(values))
    wide = DTYPES[_FIELD_DATATYPE[field_name]]
    return np.fromiter(values, wide, len(values)).astype(DTYPES[tensor.datatype], copy=False)


def _shaped(values: Array, tensor: InputTensor, model: str) -> Array:
    dtype, shape = DTYPES.get(tensor.datatype), tuple(tensor.shape)
    try:
        if dtype is None:
            known = ", ".join(DTYPES)
            raise ValueError(f"unknown datatype '{tensor.datatype}', expected one of {known}")
        if min(shape, default=0) < 0 or values.size != prod(shape):
            raise ValueError(f"expected {prod(shape)} elements, got {values.size}")
        return values.astype(dtype, copy=False).reshape(shape)
    except ValueError as error:
        n_bytes = values.size * (dtype.itemsize if dtype else 0)
        raise _bad_tensor(tensor, model, n_bytes, error) from None
