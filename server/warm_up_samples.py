"""The requests that config.pbtxt wants run before a version serves (`model_warmup`)."""

import numpy as np

from optimizer.example_inputs import Recipe, values
from protos.signature import Signature
from protos.tensors import DTYPES, Array, decode
from server.errors import LoadFailed
from server.model_config import WarmUpInput, WarmUpSample


def requests_of(sample: WarmUpSample) -> list[dict[str, Array]]:
    """The sample's request, as often as its `count` says.

    Raises:
        LoadFailed: a data file is missing or of another size than its tensor.
    """
    request = {name: _array(sample, name, source) for name, source in sample.inputs.items()}
    return [request] * max(1, sample.count)


def recipe_of(sample: WarmUpSample, signature: Signature) -> Recipe:
    """A recipe for inputs like the sample's: its lengths, and the rows of its data files.

    Inputs that the sample fills with zeros or noise get values of our own: the probes need rows
    that differ.

    Raises:
        LoadFailed: as `requests_of`.
    """
    offset = 1 if sample.batch_size else 0
    names = {spec.name for spec in signature.inputs}
    return Recipe(
        sizes={
            (name, axis + offset): size
            for name, source in sample.inputs.items()
            for axis, size in enumerate(source.dims)
            if name in names
        },
        given={
            name: _array(sample, name, source)
            for name, source in sample.inputs.items()
            if source.source == "file" and name in names
        },
    )


def _array(sample: WarmUpSample, name: str, source: WarmUpInput) -> Array:
    shape = (sample.batch_size, *source.dims) if sample.batch_size else source.dims
    if source.source == "file":
        return _from_file(sample, name, source, shape)
    if source.source == "random":
        return values(source.datatype, shape, np.random.default_rng(0))
    array = np.zeros(shape, DTYPES[source.datatype])
    if source.datatype == "BYTES":
        array.fill(b"")
    return array


def _from_file(
    sample: WarmUpSample, name: str, source: WarmUpInput, shape: tuple[int, ...]
) -> Array:
    assert source.file is not None
    try:
        return decode(source.file.read_bytes(), source.datatype, shape)
    except (OSError, ValueError) as error:
        raise LoadFailed(
            f"model_warmup '{sample.name}': input '{name}': '{source.file}': {error}"
        ) from None
