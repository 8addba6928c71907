"""Tie-aware average precision from histograms against ranking each query with numpy's argsort.

Every round runs each way in turn on the same codes, in one process; a ratio is taken within a round, and what counts
is the median over rounds. Two rankings stand for argsort: the usual one of deep-hashing code (a float product, sorted a
query at a time) and the fastest that was found (packed codes, numpy's popcount, a radix sort of bytes). Both rank on
one thread; all ways are compared as the literature scores (ties by position) before they are timed.

    python benchmarks/average_precision.py [--queries 1000] [--database 59000] [--rounds 5] [--large]
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
MULTI_LABEL = 21
LARGE = 10_000, 1_000_000, 64


def random_codes(generator, count, bits):
    return generator.integers(0, 2, (count, bits), dtype=np.int8) * np.int8(2) - np.int8(1)


def problem(queries, database, bits, multi=False, trained=False):
    """Codes and labels of both sides. Trained: a code for each class, of which every bit flips with 2%."""
    generator = np.random.default_rng(0)
    codes, labels = [], []
    centres = random_codes(generator, 10, bits)
    for count in (queries, database):
        classes = generator.integers(0, 10, count)
        found = random_codes(generator, count, bits)
        if trained:
            found = np.where(generator.random((count, bits)) < 0.02, -1, 1).astype(np.int8) * centres[classes]
        codes.append(found)
        labels.append((generator.random((count, MULTI_LABEL)) < 0.12).astype(np.uint8) if multi else classes)
    return *codes, *labels


def relevance(query_labels, database_labels):
    """For each query a boolean row: which items share a label with it."""
    if query_labels.ndim == 1:
        return (database_labels == label for label in query_labels)
    columns = np.ascontiguousarray(database_labels.T.astype(bool))
    return (columns[labels.astype(bool)].any(axis=0) for labels in query_labels)


def precision(relevant, order):
    positions = np.flatnonzero(relevant[order]) + 1
    return np.mean(np.arange(1, len(positions) + 1) / positions) if len(positions) else 0.0


def usual_argsort(query_codes, database_codes, query_labels, database_labels, kind=None):
    """Average precision (Q,) of the full ranking: a product and an argsort a query."""
    database = np.ascontiguousarray(database_codes.T.astype(np.float32))
    rows = zip(query_codes.astype(np.float32), relevance(query_labels, database_labels), strict=True)
    return [precision(relevant, np.argsort(-(code @ database), kind=kind)) for code, relevant in rows]


def fast_argsort(query_codes, database_codes, query_labels, database_labels):
    """The same from packed codes and a radix sort of bytes."""
    dtype = f"u{query_codes.shape[1] // 8}"
    queries, database = (np.packbits(c > 0, axis=1).view(dtype)[:, 0] for c in (query_codes, database_codes))
    rows = zip(queries, relevance(query_labels, database_labels), strict=True)
    return [precision(r, np.argsort(np.bitwise_count(code ^ database), kind="stable")) for code, r in rows]


def first_call_seconds(cache):
    """Seconds of the first call in a fresh process with numba's cache in the folder `cache`."""
    environment = os.environ | {"NUMBA_CACHE_DIR": cache}
    command = [sys.executable, "-c", FIRST_CALL]
    return float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


def timed(function, *inputs, **options):
    """Seconds by the clock, and of processor time on all threads."""
    start, busy = time.perf_counter(), time.process_time()
    function(*inputs, **options)
    return time.perf_counter() - start, time.process_time() - busy


def spread(values):
    return f"{np.median(values):.1f} [{min(values):.1f}, {max(values):.1f}]"


def compare(name, inputs, rounds):
    """One line of the table: milliseconds of ours, and how many times longer each ranking takes."""
    few = (inputs[0][:20], inputs[1], inputs[2][:20], inputs[3])
    ranked = average_precision(*few, ties="position")
    np.testing.assert_allclose(ranked, usual_argsort(*few, kind="stable"))
    np.testing.assert_allclose(ranked, fast_argsort(*few))
    average_precision(*few)
    ways = (average_precision, usual_argsort, fast_argsort)
    seconds = [
        [*(timed(way, *inputs) for way in ways), timed(average_precision, *inputs, ties="position")]
        for _ in range(rounds)
    ]
    (ours, usual, fast, _), (busy, usual_busy, fast_busy, busy_by_position) = np.array(seconds).T
    distinct = len(np.unique(np.packbits(inputs[1] > 0, axis=1), axis=0)) / len(inputs[1])
    cells = [
        name,
        f"{distinct:.0%}",
        f"{1000 * min(busy):.0f} ms",
        *(spread(ratio) for ratio in (usual / ours, fast / ours, usual_busy / busy, fast_busy / busy)),
        f"{1000 * min(busy_by_position):.0f} ms",
    ]
    print(f"| {' | '.join(cells)} |", flush=True)


def growth(queries, database, bits, rounds):
    """Processor time over three sizes of each side, over that of the smallest: interleaved, least of the rounds."""
    for what, sizes in (
        ("queries", [(queries * f, database) for f in (1, 2, 4)]),
        ("database", [(queries, database * f) for f in (1, 2, 4)]),
    ):
        inputs = [problem(*size, bits) for size in sizes]
        seconds = [[timed(average_precision, *some)[1] for some in inputs] for _ in range(rounds)]
        least = np.min(seconds, axis=0)
        print(f"{what} times 1, 2, 4: time times {', '.join(f'{s / least[0]:.2f}' for s in least)}")


def large():
    """Seconds and peak memory of this process, the codes themselves included."""
    import resource

    inputs = problem(*LARGE)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds, busy = timed(average_precision, *inputs)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"{LARGE[0]} queries, {LARGE[1]} items, {LARGE[2]} bits: {seconds:.1f} s ({busy:.1f} s of processor "
        f"time), peak memory "
        f"{peak / 1024:.0f} MiB ({before / 1024:.0f} MiB before the call)"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    for name, default in (("queries", 1000), ("database", 59_000), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument(
        "--large", action="store_true", help="one case of {} queries, {} codes, {} bits".format(*LARGE)
    )
    args = parser.parse_args()
    if args.large:
        large()
        return
    size = args.queries, args.database
    print(
        f"{size[0]} queries, {size[1]} items, {args.rounds} rounds; threads: {numba.config.NUMBA_NUM_THREADS}"
    )
    print(
        "Ratios to ours: by the clock, and by processor time (a core). Milliseconds: processor time, the least."
    )
    print(
        "| codes, labels | distinct | ours | usual | fastest | usual, a core | fastest, a core | ours by position |"
    )
    print("|---|---|---|---|---|---|---|---|")
    compare("32 bits, 10 classes", problem(*size, 32), args.rounds)
    compare("64 bits, 10 classes", problem(*size, 64), args.rounds)
    compare(f"64 bits, {MULTI_LABEL} labels", problem(*size, 64, multi=True), args.rounds)
    compare("32 bits, 10 classes, as trained", problem(*size, 32, trained=True), args.rounds)
    growth(*size, 64, args.rounds)
    with tempfile.TemporaryDirectory() as cache:
        print(f"first call of a process: compiled {first_call_seconds(cache):.2f} s", end=", ")
        print(f"from numba's cache {first_call_seconds(cache):.2f} s")


if __name__ == "__main__":
    main()
