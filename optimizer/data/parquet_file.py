"""`.parquet`."""

from pathlib import Path

from optimizer.data.found import Found
from optimizer.data.frames import columns_of, pandas
from optimizer.errors import DataError, Unavailable
from protos.signature import Signature


def read(path: Path, signature: Signature, labels: str | None) -> Found:
    """Reads all columns; a column of lists is an input with more axes.

    Raises:
        DataError: no Parquet file.
        Unavailable: pandas or pyarrow is not installed.
    """
    library = pandas(path)
    try:
        frame = library.read_parquet(path)
    except ImportError:
        raise Unavailable(f"reading '{path}' needs pyarrow: install inflight[tables]") from None
    except (OSError, ValueError) as error:  # ArrowInvalid is a ValueError
        raise DataError(f"'{path}': cannot be read as .parquet: {error}") from None
    return columns_of(frame, f"'{path}'")
