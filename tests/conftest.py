"""Settings and fixtures that all tests share."""

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import jax
import jaxtyping
import pytest

from experiments.stages import memory
from tests.heavy import HEAVY, QUICK

ROOT = Path(__file__).resolve().parents[1]
MEMORY = 4e9  # bytes that a worker may hold between modules

# A (n,) array that meets an (m, n) array by accident is a bug here: broadcasts are written out.
jax.config.update("jax_numpy_rank_promotion", "raise")

# Compiled programs, also the many small ones, are kept between runs of the suite. Tracing is not, so
# tests that count traces still count. The folder lies in the checkout: it is not another machine's.
jax.config.update("jax_compilation_cache_dir", str(ROOT / ".cache" / "jax"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)

# The same examples in every run, and no deadline: the first example of a shape also compiles.
hypothesis.settings.register_profile(
    "slth",
    deadline=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("slth")

os.environ.setdefault("MPLBACKEND", "Agg")  # figures go to files, also where there is a screen


def seed_of(name: str) -> int:
    """Seed in [0, 2³²) that depends on the name alone: the first four bytes of its SHA-256."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of tests/heavy.py as slow, and refuse entries of it that name no test."""
    unknown = {*HEAVY, *(f"{test}[{case}" for test, cases in QUICK.items() for case in cases)}
    for item in items:
        name = item.nodeid.removeprefix("tests/")
        test = name.partition("[")[0]
        quick = [f"{test}[{case}" for case in QUICK.get(test, ()) if name.startswith(f"{test}[{case}")]
        matched = [entry for entry in HEAVY if name.startswith(entry)]
        if matched or (test in QUICK and not quick):
            item.add_marker(pytest.mark.slow)
        unknown -= {*matched, *quick}
    files = {item.nodeid.removeprefix("tests/").partition("::")[0] for item in items if "[" in item.nodeid}
    whole = not any("::" in argument for argument in items[0].config.args) if items else False
    missing = sorted(entry for entry in unknown if whole and entry.partition("::")[0] in files)
    if missing:
        raise pytest.UsageError(f"tests/heavy.py names tests that are not there: {missing}")


@pytest.fixture(scope="module", autouse=True)
def forget_compiled() -> Iterator[None]:
    """Compiled programs go once a worker holds gigabytes of them. Until then the next module need not trace
    them anew."""
    yield
    try:
        full = memory("VmRSS") > MEMORY
    except OSError:  # the system does not say
        full = True
    if full:
        jax.clear_caches()


@pytest.fixture
def getkey(request: pytest.FixtureRequest) -> Callable[[], jax.Array]:
    """Fresh JAX keys, one a call, the same in every run of the same test."""
    seed, drawn = seed_of(request.node.nodeid), iter(range(2**31))
    return lambda: jax.random.fold_in(jax.random.key(seed), next(drawn))


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Annotations are not checked, as for users: what a function itself says of a wrong type is tested."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def root() -> Path:
    """Root of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of real data: published networks, MNIST and CIFAR-10 excerpts. Not part of slth."""
    named = os.environ.get("SLTH_DATA")
    folder = Path(named) if named else ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        if named:
            pytest.fail(f"SLTH_DATA={named} is not a folder")
        pytest.skip("no folder of real data: set SLTH_DATA to one to run this test")
    return folder
