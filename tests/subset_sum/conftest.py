"""Settings of all tests of the engine."""

from collections.abc import Iterator

import pytest

from slth.subset_sum import stages


@pytest.fixture(scope="module", autouse=True)
def every_kernel() -> Iterator[None]:
    """No number of problems is few, and any is many: a handful of them is enough to test a kernel."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "FEW", {})
        patch.setattr(stages, "FEW_LONG", 0)
        patch.setattr(stages, "MANY", 0)
        yield
