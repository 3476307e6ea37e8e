"""What every test gets: its own kernel cache, seeded random numbers, few and untimed examples."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import settings

# Compiling takes as long as it takes, so no deadline; in CI the same examples every time.
settings.register_profile(
    "quern", max_examples=25, deadline=None, database=None, derandomize="CI" in os.environ
)
settings.load_profile("quern")

# A shell's background jobs ignore Ctrl-C, and their children with them; the tests send it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def kernel_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the user's kernel cache out of the tests, unless QUERN_CACHE_DIR names one for them."""
    with pytest.MonkeyPatch.context() as patch:
        if "QUERN_CACHE_DIR" not in os.environ:
            patch.setenv("QUERN_CACHE_DIR", str(tmp_path_factory.mktemp("kernels")))
        yield


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers that are the same in every run."""
    return np.random.default_rng(0)
