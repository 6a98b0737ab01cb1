"""A raw binary request: a body without JSON that is all data of the model's only input.

Source: Triton's binary tensor data extension, "Raw Binary Request".
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from trivet.datatypes import BYTES
from trivet.errors import InvalidArgumentError
from trivet.tensor import Buffer, Tensor, element_count

from trivet_protocol_kserve_v2.codec.requests import label

if TYPE_CHECKING:
    from trivet.config.spec import ModelSpec


def decode_raw(body: Buffer, spec: ModelSpec) -> Tensor:
    """The model's input, its shape deduced from the size of ``body``: a batch of one where the model batches.

    Raises :class:`~trivet.errors.InvalidArgumentError` where the model has several inputs, or a shape that cannot be
    deduced.
    """
    if len(spec.inputs) != 1:
        raise InvalidArgumentError(
            f"{label()} Raw request must only have 1 input (found 1) to be deduced but got {len(spec.inputs)} inputs in"
            f" '{spec.name}' model configuration"
        )
    (declared,) = spec.inputs.values()
    batch = (1,) if spec.max_batch_size > 0 else ()
    if declared.datatype is BYTES:
        if declared.dims != (1,):
            raise InvalidArgumentError(
                f"{label()} For BYTE datatype raw input '{declared.name}', the model must have input shape [1]"
            )
        # The one element is all of the body, which has to be copied to get its length in front.
        element = struct.pack("<I", len(body)) + bytes(body)
        return Tensor.from_wire(declared.name, BYTES, (*batch, 1), element)

    size = memoryview(body).nbytes
    itemsize = declared.datatype.itemsize
    variable = declared.dims.count(-1)
    if variable > 1:
        raise InvalidArgumentError(
            f"{label()} The shape of the raw input '{declared.name}' can not be deduced because there are more than one"
            " variable-sized dimension"
        )
    rest = element_count([dim for dim in declared.dims if dim != -1])
    found = size // (itemsize * rest) if rest else 0
    dims = tuple(found if dim == -1 else dim for dim in declared.dims)
    expected = element_count(dims) * itemsize
    if size != expected:
        raise InvalidArgumentError(
            f"{label()} input byte size mismatch for input 'raw_input' for model '{spec.name}'. Expected {expected},"
            f" got {size}"
        )
    return Tensor.from_wire(declared.name, declared.datatype, (*batch, *dims), body)
