"""`.npz`: arrays by the names of the inputs, and one of labels."""

import zipfile
from pathlib import Path

import numpy as np

from optimizer.data.found import Found, label_name
from optimizer.errors import DataError
from protos.signature import Signature


def read(path: Path, signature: Signature, labels: str | None) -> Found:
    """Reads all arrays; a single one that is no label is the only input, whatever its name.

    Raises:
        DataError: damaged, or holds pickled objects, which are not opened.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"'{path}': cannot be read as .npz: {error}") from None
    required = [spec.name for spec in signature.inputs if not spec.optional]
    given = [n for n in arrays if n != label_name(list(arrays), signature, labels, f"'{path}'")]
    if len(required) == 1 and len(given) == 1 and given != required:
        arrays = {required[0] if name in given else name: a for name, a in arrays.items()}
    return Found(arrays)
