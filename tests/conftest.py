"""The databases that a store may be on: tests that take `database_url` run over each of them.

And what holds for all examples that are generated: none of them has a time limit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from databases import Databases
from hypothesis import HealthCheck, settings
from postgres import Cluster, cluster, installed

# How long an example takes tells of the machine: one that is busy would fail what is right.
settings.register_profile("spile", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("spile")

DATABASES = ("sqlite", "postgresql")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """A PostgreSQL server for the whole run. It does not sync: a test of what survives a crash makes its own."""
    if not installed():
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    with cluster() as running:
        yield running


@pytest.fixture(scope="session")
def databases(postgres: Cluster) -> Databases:
    """Databases of that server with the tables of a store in them."""
    return Databases(postgres)


@pytest.fixture(params=DATABASES)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Where a new store can be opened."""
    with _lent(request, tmp_path) as url:
        yield url


@pytest.fixture(scope="module", params=DATABASES)
def module_database_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The same, for a store that the tests of a module share."""
    with _lent(request, tmp_path_factory.mktemp("store")) as url:
        yield url


@contextmanager
def _lent(request: pytest.FixtureRequest, folder: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield str(folder)
        return
    databases: Databases = request.getfixturevalue("databases")
    with databases.lent() as url:
        yield url
