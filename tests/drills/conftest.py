"""What all drills share: a loop that lives as long as a module, so that a stack can be shared by its tests."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"
