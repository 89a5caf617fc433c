"""Fixtures: services that end with the test, and what they can be pointed at without a machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.contract.fakes import FakeBuild, FakeSandbox
from tests.contract.service import Service

Serve = Callable[..., Service]
Fake = Callable[..., FakeSandbox]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A cache base of its own."""
    path = tmp_path / "cache"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
def serve(base: Path) -> Iterator[Serve]:
    """`serve(**options)` starts a service that has not shaken hands."""
    services: list[Service] = []

    def start(**options: object) -> Service:
        services.append(Service(base, **options))  # type: ignore[arg-type]
        return services[-1]

    yield start
    for service in services:
        service.end()


@pytest.fixture
def fresh(serve: Serve) -> Service:
    """A service that has shaken hands, for a test that ends it."""
    return serve().initialize()


@pytest.fixture(scope="session")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Service]]:
    """The service that tests share, in a list: half a second for each would add up."""
    services: list[Service] = []
    yield services
    for service in services:
        service.end()


@pytest.fixture
def service(standing: list[Service], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that has shaken hands, without any sandbox or image; it must outlive the test."""
    if not standing:
        base = tmp_path_factory.mktemp("shared") / "cache"
        base.mkdir(mode=0o700)
        standing.append(Service(base).initialize())
    service = standing[0]
    said = len(service.errors())
    yield service
    if service.process.poll() is not None or service.heard:
        # The test has failed, or will: the next one begins anew.
        standing.remove(service)
        service.end()
    assert "Traceback" not in service.errors()[said:]


@pytest.fixture
def fake(base: Path) -> Iterator[Fake]:
    """`fake(name)` makes a sandbox that seems to run."""
    made: list[FakeSandbox] = []

    def make(name: str = "box") -> FakeSandbox:
        made.append(FakeSandbox(base, name))
        return made[-1]

    yield make
    for sandbox in made:
        sandbox.end()


@pytest.fixture
def fake_build(tmp_path: Path) -> FakeBuild:
    """Programs for an image build that lasts until it is ended."""
    return FakeBuild(tmp_path / "programs")
