"""One federation that all tests of access share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.security.ground import Ground, ground


@pytest.fixture(scope="package")
def at(mosquitto_installed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """A federation whose broker asks for certificate and password."""
    with ground(tmp_path_factory.mktemp("ground")) as made:
        yield made
