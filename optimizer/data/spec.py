"""Where rows come from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from optimizer.errors import DataError


@dataclass(frozen=True, slots=True)
class DataSpec:
    """A file, or a query on a connection that the operator named.

    Raises:
        DataError: a field's value makes no sense.
    """

    source: Literal["file", "sql"]
    path: Path | None = None
    query: str | None = None
    database: str = "default"  # name of a connection; never a URL
    labels: str | None = None  # array or column with the right answers; None: by usual names
    row_limit: int = 10_000
    timeout_s: float = 60.0  # of the query
    origin: str = ""  # for reports; "": the file's name, or the connection's

    def __post_init__(self) -> None:
        if self.source not in ("file", "sql"):
            raise DataError(f"data source: expected 'file' or 'sql', got '{self.source}'")
        if self.row_limit < 1:
            raise DataError(f"row_limit: expected 1 or more, got {self.row_limit}")
        if self.timeout_s <= 0:
            raise DataError(f"timeout_s: expected more than 0, got {self.timeout_s}")
