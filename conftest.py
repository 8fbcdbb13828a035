"""What every test and every example of the documentation has in common."""

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def known_activations() -> Iterator[None]:
    """An activation that a test or an example registers is known until its end, not to those that follow."""
    from slth.nn.activations import ACTIVATIONS  # not above: annotations are checked from the import on

    known = dict(ACTIVATIONS)
    yield
    ACTIVATIONS.clear()
    ACTIVATIONS.update(known)
