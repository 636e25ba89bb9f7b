"""`.npy`: the one input of a model that has one."""

from pathlib import Path

import numpy as np

from optimizer.data.found import Found, listed
from optimizer.errors import DataError
from protos.signature import Signature


def read(path: Path, signature: Signature, labels: str | None) -> Found:
    """Reads the array, mapped into memory.

    Raises:
        DataError: damaged, holds pickled objects, or the model has several inputs.
    """
    names = [spec.name for spec in signature.inputs if not spec.optional]
    if len(names) != 1:
        raise DataError(f"'{path}' is one array, the model has inputs {listed(names)}: use .npz")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"'{path}': cannot be read as .npy: {error}") from None
    if labels is not None:
        raise DataError(f"'{path}': no labels '{labels}', an .npy file holds one array: use .npz")
    return Found({names[0]: array})
