"""The toy store, for all tests of reports."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fixture_store import ToyStore, toy_store


@pytest.fixture(scope="session")
def toy_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that tests only read."""
    return toy_store(tmp_path_factory.mktemp("toy")).root


@pytest.fixture
def toy(tmp_path: Path) -> ToyStore:
    """An empty store of one's own."""
    return ToyStore(tmp_path / "store")
