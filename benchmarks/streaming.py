"""Cost and memory of data larger than memory: maps read from HDF5 band by band.

    python benchmarks/streaming.py --sizes 1x1001,10x1001,25x2001 --fit 25x2001

Every row is a process of its own. Times are medians of evaluations of cost, gradient and JᵀJ of a
laminar model with individual scaling; an entry is one element of the full square map. Two processes
read the same file as the workers of an executor. The last line is JSON.
"""

import argparse
import gc
import json
import multiprocessing
import os
import tempfile
import time
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import ExitStack
from typing import Any

from common import (
    CONTRAST,
    GAP,
    NOISE,
    OFFSET,
    TRUTH,
    WINDOW,
    Q,
    laminar,
    machine,
    median,
    peak_memory,
    run_self,
    sizes,
    start_values,
    table,
)

PROCESSES = 2


def generate(path: str, n_angles: int, n_frames: int) -> None:
    """A file in the library's own layout, float32, written map by map."""
    import h5py
    import jax
    import numpy as np

    jax.config.update("jax_enable_x64", True)
    from xpcs_eqx import Geometry, simulate

    t = WINDOW / n_frames * np.arange(1, n_frames + 1)
    phi = np.linspace(0.0, 90.0, n_angles)
    side = min(256, n_frames)
    with h5py.File(path, "w") as file:
        file.attrs.update({"format": "xpcs-eqx", "version": 1, "absolute_sigma": "False"})
        file["t"], file["phi"], file["q"], file["gap"] = t, phi, Q, GAP
        shape = (n_angles, n_frames, n_frames)
        c2 = file.create_dataset("c2", shape, np.float32, chunks=(1, side, side))
        file["diagonal"] = np.full((n_angles, n_frames), np.nan)
        for angle in range(n_angles):
            one = Geometry(q=Q, phi=phi[angle : angle + 1], gap=GAP)
            key = jax.random.key(angle)
            data = simulate(laminar(TRUTH), t, one, CONTRAST, OFFSET, noise=NOISE, key=key)
            c2[angle] = np.asarray(data.c2[0], np.float32)


def problem(path: str, kind: str, pool: Executor | None = None) -> tuple[Any, float, float]:
    """The objective, and the seconds it took to read or survey the file and to build it."""
    import jax

    jax.config.update("jax_enable_x64", True)
    from xpcs_eqx import ExecutorSum, load, open_stored, parameter_map, projected_objective

    clock = time.perf_counter()
    data = load(path, checksum=False) if kind == "memory" else open_stored(path)
    opened = time.perf_counter() - clock
    parameters = parameter_map(laminar(start_values()), data.t)
    driver = None if pool is None else ExecutorSum(pool, workers=PROCESSES)
    objective = projected_objective(parameters, data, driver=driver)
    return objective, opened, time.perf_counter() - clock


def evaluations(path: str, kind: str, repeats: int) -> dict[str, Any]:
    """Seconds and processor seconds of an evaluation, the latter without those of workers."""
    with ExitStack() as stack:
        pool = None
        if kind == "workers":
            spawn = multiprocessing.get_context("spawn")
            pool = stack.enter_context(ProcessPoolExecutor(PROCESSES, spawn))
        return _evaluations(path, kind, repeats, pool)


def _evaluations(path: str, kind: str, repeats: int, pool: Executor | None) -> dict[str, Any]:
    import jax

    objective, opened, _ = problem(path, kind, pool)
    from xpcs_eqx.compiling import quick_jit

    whole = quick_jit(lambda o, y, memo: o.evaluate(y, memo))
    evaluate = whole if objective.traceable else (lambda o, y, memo: o.evaluate(y, memo))
    y, memo = objective.variables.to_coordinates(objective.start), objective.memo
    gc.collect()
    before = peak_memory()
    walls, processors = [], []
    for _ in range(repeats + 1):
        wall, processor = time.perf_counter(), time.process_time()
        jax.block_until_ready(evaluate(objective, y, memo))
        walls.append(time.perf_counter() - wall)
        processors.append(time.process_time() - processor)
    return {
        "open": opened,
        "seconds": median(walls[1:]),
        "best": min(walls[1:]),
        "processor": median(processors[1:]),
        "peak_before": before,
        "peak": peak_memory(),
    }


def fit(path: str, kind: str) -> dict[str, Any]:
    """A whole fit from a start 40 % off."""
    objective, opened, _ = problem(path, kind)
    from xpcs_eqx import least_squares

    clock = time.perf_counter()
    found = least_squares(objective)
    took = time.perf_counter() - clock
    off = max(abs(found[name].value - value) / found[name].error for name, value in TRUTH.items())
    return {
        "open": opened,
        "fit": took,
        "timings": dict(found.timings),
        "evaluations": found.evaluations,
        "status": found.status.name,
        "worst_deviation": off,
        "values": [found[name].value for name in TRUTH],
        "peak": peak_memory(),
    }


def main() -> None:
    """Run all rows and print the table, or one of them as a child."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="1x1001,10x1001,25x2001")
    parser.add_argument("--fit", default="", help="sizes to fit from the file")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", help="where the data files go and stay")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        task, path, *rest = arguments.child
        if task == "generate":
            generate(path, int(rest[0]), int(rest[1]))
            print(json.dumps({"peak": peak_memory()}))
        elif task == "fit":
            print(json.dumps(fit(path, "file")))
        else:
            print(json.dumps(evaluations(path, task, arguments.repeats)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folder or scratch
        result = {"machine": machine(), "rows": [], "fits": []}
        for n_angles, n_frames in sizes(arguments.sizes):
            result["rows"].append(_row(arguments, folder, n_angles, n_frames))
        for n_angles, n_frames in sizes(arguments.fit) if arguments.fit else ():
            path = _data(folder, n_angles, n_frames)
            found = run_self(__file__, "--child", "fit", path)
            result["fits"].append({"angles": n_angles, "frames": n_frames, **found})
    header = [
        "entries",
        "memory ns",
        "file ns",
        "ratio",
        "2 processes ns",
        "ratio",
        "MB",
        "file MB",
    ]
    rows = [
        [
            f"{row['entries']:.3g}",
            row["memory"]["ns"],
            row["file"]["ns"],
            row["ratio"],
            row["workers"]["ns"],
            row["workers_ratio"],
            row["memory"]["peak"],
            row["file"]["peak"],
        ]
        for row in result["rows"]
    ]
    print(table(header, rows))
    for one in result["fits"]:
        print(
            f"fit {one['angles']} × {one['frames']}²: {one['status']} after {one['evaluations']} "
            f"evaluations, {one['fit']:.0f} s, peak {one['peak']:.0f} MB, worst deviation "
            f"{one['worst_deviation']:.2g} standard errors"
        )
    print(json.dumps(result))


def _data(folder: str, n_angles: int, n_frames: int) -> str:
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, f"maps-{n_angles}x{n_frames}.h5")
    if not os.path.exists(path):
        run_self(__file__, "--child", "generate", path, n_angles, n_frames)
    return path


def _row(arguments: argparse.Namespace, folder: str, n_angles: int, n_frames: int) -> dict:
    path = _data(folder, n_angles, n_frames)
    entries = n_angles * n_frames**2
    row: dict[str, Any] = {"angles": n_angles, "frames": n_frames, "entries": entries}
    common = ["--repeats", arguments.repeats]
    for kind in ("memory", "file", "workers"):
        found = run_self(__file__, *common, "--child", kind, path)
        row[kind] = {**found, "ns": found["seconds"] / entries * 1e9}
    row["ratio"] = row["file"]["seconds"] / row["memory"]["seconds"]
    row["workers_ratio"] = row["workers"]["seconds"] / row["memory"]["seconds"]
    row["best_ratio"] = row["file"]["best"] / row["memory"]["best"]
    return row


if __name__ == "__main__":
    main()
