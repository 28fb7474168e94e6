"""A series of files by the program: time of a file after the first, interruption, a broken file.

    python benchmarks/series.py [--files 40] [--size 3x201] [--jobs 2] [--repeats 3] [--from-first]

Simulated files of laminar flow are fitted by `xpcs-eqx fit` with a configuration of `xpcs-eqx
init`, everything as it is by default but for plots of each file; with `--from-first`, as of the
program, from where the first good fit ended, without looking for other minima. The first run finds
no compiled functions on disk, the others find those that it has left. Time of a file is that from
the first result to the end of the program over the number of other files; `first` is what comes
before [s], and `cpu` the time of the processors that all of it took, over the number of files [s],
which depends less on what else the machine does.

One more run has a broken file among them, is killed when half of the files are done, and is called
again: `again` is the time of the second call a file that was left [s].

The last line is JSON.
"""

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import machine, run, sizes, table, wait_until_quiet

MAKE = """
import json, sys
sys.path.insert(0, {here!r})
from common import write_data
for k in range({files}):
    write_data(f"scan_{{k:02d}}.hdf", {angles}, {frames}, k)
print(json.dumps({{"files": {files}}}))
"""
PROGRAM = [sys.executable, "-m", "xpcs_eqx"]


def fitted(
    folder: Path,
    output: str,
    options: list[str],
    files: list[str],
    stop_after: int | None = None,
) -> dict[str, Any]:
    """Fit files; when each of the results was there [s], and the wall time of the program.

    `stop_after`: the number of results after which the program and all its processes are killed.
    """
    command = [*PROGRAM, "fit", "fit.toml", *files, *options, "--no-plots"]
    clock, before = time.perf_counter(), processor_time()
    process = subprocess.Popen(
        [*command, "--output", output], cwd=folder, stdout=subprocess.PIPE,
        env=os.environ | {"XDG_CACHE_HOME": str(folder / "cache")}, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    times, verdicts = [], []
    for line in process.stdout:
        if line.startswith("scan_"):
            times.append(time.perf_counter() - clock)
            verdicts.append(line.split(": ")[1].split(" ")[0])
        if stop_after is not None and len(times) == stop_after:
            os.killpg(process.pid, signal.SIGKILL)
    code = process.wait()
    wall = time.perf_counter() - clock
    cpu = (processor_time() - before) / max(len(times), 1)
    return {"times": times, "verdicts": verdicts, "wall": wall, "code": code, "cpu": cpu}


def processor_time() -> float:
    """Time of the processors that processes started from here have taken [s]."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def a_file(found: dict[str, Any]) -> float:
    """Time of a file after the first [s]."""
    return (found["wall"] - found["times"][0]) / (len(found["times"]) - 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=40)
    parser.add_argument("--size", default="3x201", help="angles x frames")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--from-first", action="store_true")
    given = parser.parse_args()
    options = ["--jobs", str(given.jobs), *(["--from-first"] if given.from_first else [])]
    ((angles, frames),) = sizes(given.size)
    os.environ["PYTHONPATH"] = os.pathsep.join(
        [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        here = os.getcwd()
        os.chdir(folder)
        script = MAKE.format(
            here=str(Path(__file__).parent), files=given.files, angles=angles, frames=frames
        )
        run([sys.executable, "-c", script])
        (folder / "fit.toml").write_text(
            subprocess.run(
                [*PROGRAM, "init", "scan_00.hdf"], capture_output=True, text=True, check=True
            ).stdout
        )
        files = [f"scan_{k:02d}.hdf" for k in range(given.files)]
        load, rows, runs, out = wait_until_quiet(0.7, 30.0), [], [], {}
        for k in range(given.repeats):
            one = fitted(folder, f"run{k}", options, files)
            good = one["verdicts"].count("good")
            numbers = one["times"][0], a_file(one), one["wall"], one["cpu"], good
            rows.append((f"run {k + 1}", *numbers))
            runs.append(one)
            # Each takes a while on a busy machine.
            print(*map(str, rows[-1]), file=sys.stderr, flush=True)
        (folder / files[1]).write_text("no maps")
        half = fitted(folder, "killed", options, files, given.files // 2)
        rest = fitted(folder, "killed", options, files)
        done = len({*(folder / "killed").glob("scan_*/fit/parameters.json")})
        again = rest["wall"] / (given.files - len(half["times"]))
        rows.append(("killed", half["times"][0], a_file(half), half["wall"], None, None))
        rows.append(("again", rest["times"][0], again, rest["wall"], None, None))
        os.chdir(here)
        out = {
            "files": given.files,
            "size": given.size,
            "jobs": given.jobs,
            "from_first": given.from_first,
            "load": load,
            "first": [one["times"][0] for one in runs],
            "a_file": [a_file(one) for one in runs],
            "cpu": [one["cpu"] for one in runs],
            "good": [one["verdicts"].count("good") for one in runs],
            "killed_after": len(half["times"]),
            "again": again,
            "folders": done,
            "failed": rest["verdicts"].count("failed"),
            **machine(),
        }
    print(table(("", "first [s]", "a file [s]", "all [s]", "cpu [s]", "good"), rows))
    print(json.dumps(out))


if __name__ == "__main__":
    main()
