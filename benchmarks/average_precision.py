"""Tie-aware average precision from histograms against ranking each query with numpy's argsort.

Both run on the same random codes in turn, several times, in one process; what counts is the ratio of the
medians. Both ways are compared as the literature scores (ties by position) before they are timed.
`NUMBA_NUM_THREADS=1` gives the ratio on one core.

    python benchmarks/average_precision.py [--queries 1000] [--database 59000] [--bits 32] [--rounds 3]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time

import numba
import numpy as np

from hashrobust.metrics import average_precision

FIRST_CALL = (
    "import numpy as np, time; from hashrobust.metrics import average_precision as ap; o = np.ones((1, 4));"
    "start = time.perf_counter(); ap(o, o, [0], [0]); print(time.perf_counter() - start)"
)


def by_argsort(query_codes, database_codes, query_labels, database_labels, kind=None):
    """Average precision (Q,) of the full ranking, one argsort a query."""
    database = database_codes.T.astype(np.float32)
    scores = np.zeros(len(query_codes))
    for query, code in enumerate(query_codes.astype(np.float32)):
        order = np.argsort(-(code @ database), kind=kind)
        positions = np.flatnonzero((database_labels == query_labels[query])[order]) + 1
        scores[query] = np.mean(np.arange(1, len(positions) + 1) / positions)
    return scores


def first_call_seconds(cache):
    """Seconds of the first call in a fresh process with numba's cache in the folder `cache`."""
    environment = os.environ | {"NUMBA_CACHE_DIR": cache}
    command = [sys.executable, "-c", FIRST_CALL]
    return float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


def timed(function, *inputs, **options):
    start = time.perf_counter()
    function(*inputs, **options)
    return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    for name, default in (("queries", 1000), ("database", 59_000), ("bits", 32), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    generator = np.random.default_rng(0)
    codes = [
        generator.choice(np.array([-1, 1], np.int8), (n, args.bits)) for n in (args.queries, args.database)
    ]
    labels = [generator.integers(0, 10, n) for n in (args.queries, args.database)]
    few = (codes[0][:20], codes[1], labels[0][:20], labels[1])
    np.testing.assert_allclose(average_precision(*few, ties="position"), by_argsort(*few, kind="stable"))
    average_precision(*few)

    seconds = {"histograms, ties expected": [], "histograms, ties by position": [], "argsort": []}
    for _ in range(args.rounds):
        seconds["histograms, ties expected"].append(timed(average_precision, *codes, *labels))
        seconds["histograms, ties by position"].append(
            timed(average_precision, *codes, *labels, ties="position")
        )
        seconds["argsort"].append(timed(by_argsort, *codes, *labels))
    print(f"{args.queries} queries, {args.database} items, {args.bits} bits, {args.rounds} rounds,")
    print(f"threads of the compiled loops: {numba.config.NUMBA_NUM_THREADS}")
    baseline = np.median(seconds["argsort"])
    for name, values in seconds.items():
        print(f"{name:30s} {np.median(values):8.3f} s   {baseline / np.median(values):6.1f} x")
    with tempfile.TemporaryDirectory() as cache:
        print(f"first call of a process: compiled {first_call_seconds(cache):.2f} s", end=", ")
        print(f"from numba's cache {first_call_seconds(cache):.2f} s")


if __name__ == "__main__":
    main()
