"""How long the steps of a process take, in its own words: seconds, processor seconds, memory."""

from __future__ import annotations

import json
import resource
import time


class Steps:
    """Marks between steps; `tell` prints one JSON object with `<step>_s`, `<step>_cpu_s` and `<step>_peak_mb`."""

    def __init__(self) -> None:
        self.marks = [("start", *_now())]

    def done(self, step: str) -> None:
        """The step that began at the last mark is over."""
        self.marks.append((step, *_now()))

    def tell(self) -> None:
        """Print them all."""
        found = {}
        for at, (step, wall, cpu, peak) in enumerate(self.marks[1:]):
            _, begun, used, _ = self.marks[at]
            found |= {f"{step}_s": wall - begun, f"{step}_cpu_s": cpu - used, f"{step}_peak_mb": peak}
        print(json.dumps(found))


def _now() -> tuple[float, float, float]:
    return time.perf_counter(), time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
