"""How long a call takes. Needs nothing beside Python, so that scripts of other environments have it too."""

import statistics
import time
from collections.abc import Callable

SECONDS = 2.0


def milliseconds(call: Callable[[], object], images: int) -> float:
    """Median time of the calls that go into `SECONDS`, after one more, divided by the number of images."""
    call()
    seconds: list[float] = []
    while sum(seconds) < SECONDS or len(seconds) < 5:
        begun = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begun)
    return 1e3 * statistics.median(seconds) / images
