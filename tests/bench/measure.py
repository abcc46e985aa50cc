"""Interleaved timing: each round runs every contender once, so that a busy machine is busy for all of them."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

Contender = Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """Wall times of one contender, in milliseconds."""

    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def p95(self) -> float:
        return statistics.quantiles(self.samples, n=20)[18] if len(self.samples) > 1 else self.median


@dataclass(frozen=True)
class Result:
    """Ours beside a peer's."""

    title: str
    peer: str
    ours: Timing
    theirs: Timing
    target: float

    @property
    def ratio(self) -> float:
        return self.ours.median / self.theirs.median

    @property
    def is_met(self) -> bool:
        return self.ratio <= self.target

    def line(self) -> str:
        verdict = "met" if self.is_met else "MISSED"
        return (
            f"{self.title}: {self.ratio:.2f} of {self.peer} (p95 {self.ours.p95 / self.theirs.p95:.2f}); "
            f"target {self.target:.1f}: {verdict}\n"
            f"    minirt {self.ours.median:8.1f} ms median {self.ours.p95:8.1f} ms p95\n"
            f"    {self.peer:<6} {self.theirs.median:8.1f} ms median {self.theirs.p95:8.1f} ms p95\n"
        )


@dataclass(frozen=True)
class Results:
    """Several figures of one bench: (what is said of it, whether its target is met), and the medians behind them."""

    verdicts: tuple[tuple[str, bool], ...]
    figures: tuple[str, ...]

    @property
    def is_met(self) -> bool:
        return all(met for _, met in self.verdicts)

    def line(self) -> str:
        said = [f"{text}: {'met' if met else 'MISSED'}\n" for text, met in self.verdicts]
        return "".join((*said, *(f"    {text}\n" for text in self.figures)))


def interleaved(contenders: dict[str, Contender], runs: int, warm_up: int = 3) -> dict[str, Timing]:
    """Return each contender's wall times over ``runs`` rounds, after ``warm_up`` rounds that do not count."""
    samples: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(warm_up + runs):
        for name, contender in contenders.items():
            begun = time.perf_counter()
            contender()
            if number >= warm_up:
                samples[name].append((time.perf_counter() - begun) * 1e3)
    return {name: Timing(tuple(values)) for name, values in samples.items()}
