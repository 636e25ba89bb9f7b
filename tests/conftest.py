"""Settings and fixtures of all tests."""

from pathlib import Path

import pytest
from hypothesis import settings

# A busy machine is slow at times: how long an example takes says nothing about it.
settings.register_profile("no deadline", settings(), deadline=None)
settings.load_profile("no deadline")


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `optimizer_models` leaves what it builds, for the whole session."""
    return tmp_path_factory.mktemp("models")
