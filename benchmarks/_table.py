"""How benchmarks print what they measured."""

from __future__ import annotations

import statistics


def print_ratios(title: str, seconds: dict[str, list[float]], base: str) -> None:
    """Median seconds of each variant, and its ratio to `base` in the same repetition: median, smallest, largest."""
    print(f"\n{title}\n{'variant':<22}{'seconds':>9}{'ratio':>9}{'min':>9}{'max':>9}")
    for name, times in seconds.items():
        ratios = [own / other for own, other in zip(times, seconds[base], strict=True)]
        row = (statistics.median(times), statistics.median(ratios), min(ratios), max(ratios))
        print(f"{name:<22}" + "".join(f"{value:>9.4f}" for value in row), flush=True)
