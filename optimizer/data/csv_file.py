"""`.csv` with a header."""

from pathlib import Path

from optimizer.data.found import Found, text_columns
from optimizer.data.frames import columns_of, pandas
from optimizer.errors import DataError
from protos.signature import Signature

_MISSING = ["", "NA", "N/A", "n/a", "#N/A", "NaN", "nan", "NULL", "null", "None", "<NA>", "?"]


def read(path: Path, signature: Signature, labels: str | None) -> Found:
    """Reads all columns; those of BYTES inputs as they are written.

    Raises:
        DataError: no table, or not UTF-8.
        Unavailable: pandas is not installed.
    """
    library = pandas(path)
    texts = text_columns(signature, labels)
    try:
        numbers = [name for name in library.read_csv(path, nrows=0).columns if name not in texts]
        frame = library.read_csv(
            path,
            dtype=dict.fromkeys(texts, str),
            keep_default_na=False,  # "NA" in a column of texts is a text
            na_values=dict.fromkeys(numbers, _MISSING),
            low_memory=False,
        )
    except (OSError, ValueError) as error:  # pandas' own errors are ValueErrors
        raise DataError(f"'{path}': cannot be read as .csv: {error}") from None
    return columns_of(frame, f"'{path}'")
