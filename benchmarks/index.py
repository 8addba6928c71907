"""What each kind of index costs and finds: time to build and to search, recall against the exact one, memory.

Each kind is built with its defaults in a process of its own; times are of one thread, in seconds of processor time,
of three searches the median.
Clustered codes are as trained ones: each is one of 1,000 random centres with a tenth of its bits flipped. Recall: the
share of the k results that are no farther than the k-th of the exact search, so that ties count whichever is found.
Memory is what the process holds more after the searches than before it was built.

    python benchmarks/index.py [--codes clustered random] [--kinds flat ivf ...]
        [--database 1000000] [--queries 1000] [--bits 64] [--k 100]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import faiss
import numpy as np

from hashrobust.retrieval import KINDS, HammingIndex, pack, unpack

CENTRES = 1000
FLIPPED = 0.1


def made_codes(name, count, bits, generator):
    """Packed codes (count, bytes)."""
    centres = generator.choice(np.array([-1, 1], np.int8), (CENTRES, bits))
    parts = []
    for start in range(0, count, 50_000):
        size = min(50_000, count - start)
        if name == "random":
            codes = generator.choice(np.array([-1, 1], np.int8), (size, bits))
        else:
            flips = np.where(generator.random((size, bits)) < FLIPPED, -1, 1).astype(np.int8)
            codes = centres[generator.integers(0, CENTRES, size)] * flips
        parts.append(pack(codes))
    return np.concatenate(parts)


def held_mib():
    """Memory of this process (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def measure(kind, folder, bits, k):
    """Build and search one kind; called in a process of its own."""
    faiss.omp_set_num_threads(1)
    database, queries = (np.load(folder / f"{side}.npy") for side in ("database", "queries"))
    queries = unpack(queries, bits)
    before, start = held_mib(), time.process_time()
    index = HammingIndex.from_packed(database, bits, kind)
    built = time.process_time() - start
    seconds = []
    for _ in range(3):
        start = time.process_time()
        distances, _ = index.search(queries, k)
        seconds.append(time.process_time() - start)
    held = held_mib() - before
    exact = folder / "farthest.npy"
    if kind == "flat":
        np.save(exact, distances[:, -1:])
    index.save(folder / "index")
    return {
        "build": built,
        "search": float(np.median(seconds)),
        "recall": float((distances <= np.load(exact)).mean()),
        "memory": held,
        "file": (folder / "index").stat().st_size / 2**20,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    for name, default in (("database", 1_000_000), ("queries", 1000), ("bits", 64), ("k", 100)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument(
        "--codes", nargs="+", choices=("clustered", "random"), default=["clustered", "random"]
    )
    parser.add_argument(
        "--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="flat must be the first"
    )
    parser.add_argument("--only", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        print(json.dumps(measure(args.only, args.folder, args.bits, args.k)))
        return
    print(f"{args.database} codes of {args.bits} bits, {args.queries} queries, k = {args.k}")
    print("| codes | kind | build | search | recall | memory | file |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for name in args.codes:
        with tempfile.TemporaryDirectory() as folder:
            both = made_codes(name, args.database + args.queries, args.bits, np.random.default_rng(0))
            np.save(Path(folder) / "database.npy", both[args.queries :])
            np.save(Path(folder) / "queries.npy", both[: args.queries])
            for kind in args.kinds:
                command = [sys.executable, __file__, *sys.argv[1:], "--only", kind, "--folder", folder]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                found = json.loads(done.stdout)
                print(
                    f"| {name} | {kind} | {found['build']:.1f} s | {found['search']:.2f} s | {found['recall']:.3f} "
                    f"| {found['memory']:.0f} MiB | {found['file']:.0f} MiB |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
