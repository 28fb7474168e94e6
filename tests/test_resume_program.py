"""The program: what is left by an interruption, and --resume."""

import atexit
import contextlib
import gc
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import helpers_program
import pytest
from helpers_data import two_time
from helpers_program import QUICKLY, SETTINGS, prepared

from xpcs_eqx import fit as program
from xpcs_eqx import starting
from xpcs_eqx.data import write_own


@pytest.fixture
def folder(tmp_path):
    return prepared(tmp_path)


def run(folder, *arguments):
    return helpers_program.run(folder, *QUICKLY, *arguments)


def results(folder):
    """What a fit found; the times it took are its own."""
    found = helpers_program.results(folder)
    del found["timings_s"]
    return found


@pytest.fixture
def interrupt(monkeypatch):
    """A run that is interrupted at an evaluation, and what the next ones are."""

    def at(evaluation, error=KeyboardInterrupt):
        @contextlib.contextmanager
        def progress(arguments):
            def callback(state):
                if int(state.evaluations) == evaluation:
                    raise error

            yield callback

        monkeypatch.setattr(program, "_progress", progress)

    return at


def checkpoint(folder):
    return folder / "fit_results.checkpoint"


def content(folder):
    return {p.name: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_interrupted_and_gone_on_with(folder, interrupt, capsys):
    assert run(folder, "--quiet") == 0
    wanted = results(folder)
    assert not checkpoint(folder).exists()
    earlier = content(folder / "fit_results")
    interrupt(3)
    assert run(folder, "--overwrite") == 3
    message = capsys.readouterr().err
    assert f"interrupted; checkpoint written to {checkpoint(folder)}" in message
    assert "continue with --resume" in message
    assert content(folder / "fit_results") == earlier
    interrupt(4)
    assert run(folder, "--overwrite", "--resume") == 3
    assert sorted(content(checkpoint(folder))) == [f"checkpoint-0000000{i}.h5" for i in (3, 4)]
    interrupt(None)
    assert run(folder, "--overwrite", "--resume", "--quiet") == 0
    assert results(folder) == wanted
    assert sorted(os.listdir(folder)) == ["data.h5", "fit.toml", "fit_results"]


def test_states_of_an_interrupted_fit_are_not_lost_by_accident(folder, interrupt, capsys):
    interrupt(3)
    assert run(folder) == 3
    before = content(checkpoint(folder))
    capsys.readouterr()
    assert run(folder) == 2
    message = capsys.readouterr().err
    assert "give --resume to go on with it, or --overwrite" in message
    # Found out before the data are read: wrong data do not cost it either.
    assert run(folder, "--overwrite", "--set", "data.path=nowhere.h5") == 2
    assert run(folder, "--resume", "--set", "solver.los=huber") == 2
    assert run(folder, "--check") == 0
    assert content(checkpoint(folder)) == before
    interrupt(None)
    assert run(folder, "--overwrite", "--quiet") == 0
    assert not checkpoint(folder).exists()


def test_another_configuration_or_other_data_are_refused(folder, interrupt, capsys):
    interrupt(3)
    assert run(folder) == 3
    before = content(checkpoint(folder))
    capsys.readouterr()
    changes = ["solver.loss=huber", "parameters.alpha.start=0.1", "solver.cost_tol=1e-9"]
    changes += ["data.frames=[1, 20]", "scaling.mode=averaged", "model.integral=trapezoid"]
    for change in changes:
        assert run(folder, "--resume", "--set", change) == 2
        message = capsys.readouterr().err
        assert "another problem" in message
        assert "--overwrite without --resume starts from the beginning" in message
    write_own(str(folder / "data.h5"), two_time(n=24, seed=1))
    assert run(folder, "--resume") == 2
    assert "another problem" in capsys.readouterr().err
    assert content(checkpoint(folder)) == before
    assert not (folder / "fit_results").exists()
    # What is written and what is quoted is nothing to the fit.
    write_own(str(folder / "data.h5"), two_time(n=24))
    interrupt(None)
    changes = ("--set", "solver.errors=classical", "--set", "solver.checkpoint=true")
    assert run(folder, "--resume", "--quiet", *changes) == 0


def test_nothing_to_resume(folder, capsys):
    assert run(folder, "--resume") == 0
    assert "no checkpoint, the fit starts from the beginning" in capsys.readouterr().err
    assert run(folder, "--overwrite", "--resume", "--set", "solver.checkpoint=false") == 2
    assert "solver.checkpoint is false" in capsys.readouterr().err


def test_without_checkpoints(folder, interrupt, capsys):
    interrupt(3)
    assert run(folder, "--set", "solver.checkpoint=false") == 3
    assert "interrupted; nothing was written" in capsys.readouterr().err
    assert sorted(os.listdir(folder)) == ["data.h5", "fit.toml"]


@pytest.mark.parametrize("every", [1, 2])
def test_checkpoints_on_request(folder, interrupt, every):
    interrupt(5)
    keys = ("solver.checkpoint=true", f"solver.checkpoint_every={every}")
    assert run(folder, *(part for key in keys for part in ("--set", key))) == 3
    wanted = {1: [3, 4, 5], 2: [2, 4, 5]}[every]
    assert sorted(content(checkpoint(folder))) == [f"checkpoint-0000000{i}.h5" for i in wanted]


def test_an_error_keeps_the_checkpoint(folder, interrupt, capsys):
    interrupt(3, error=RuntimeError("surprise"))
    assert run(folder) == 4
    message = capsys.readouterr().err
    assert f"checkpoint written to {checkpoint(folder)}; continue with --resume" in message
    assert "surprise" in message
    interrupt(None)
    assert run(folder, "--resume", "--quiet") == 0


def test_a_damaged_checkpoint(folder, interrupt, capsys):
    interrupt(3)
    assert run(folder) == 3
    [path] = checkpoint(folder).iterdir()
    path.write_bytes(path.read_bytes()[:-10])
    capsys.readouterr()
    assert run(folder, "--resume") == 2
    message = capsys.readouterr().err
    assert str(path) in message
    assert "truncated" in message
    interrupt(None)
    assert run(folder, "--overwrite", "--quiet") == 0


@pytest.fixture
def heeded():
    """Interrupts are heeded, also where the tests run in the background, which ignores them."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(sys.platform == "win32", reason="signals of this kind are POSIX")
@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)]
)
def test_signals(tmp_path, number, heeded):
    write_own(str(tmp_path / "data.h5"), two_time(n=200))
    (tmp_path / "fit.toml").write_text(SETTINGS)
    (tmp_path / "fit_results" / "fit").mkdir(parents=True)
    (tmp_path / "fit_results" / "fit" / "report.txt").write_text("precious")
    before = content(tmp_path / "fit_results")
    command = [sys.executable, "-m", "xpcs_eqx.fit", str(tmp_path / "fit.toml"), "-v", *QUICKLY]
    command += ["--overwrite"]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as process:
        for line in process.stderr:
            if "evaluation 2:" in line:
                process.send_signal(number)
                break
        rest = process.stderr.read()
        assert process.wait(timeout=120) == 3
    assert f"interrupted; checkpoint written to {checkpoint(tmp_path)}" in rest
    assert content(tmp_path / "fit_results") == before
    left = ["data.h5", "fit.toml", "fit_results", "fit_results.checkpoint"]
    assert sorted(os.listdir(tmp_path)) == left
    assert run(tmp_path, "--overwrite", "--resume", "--quiet") == 0
    found = results(tmp_path)
    assert run(tmp_path, "--overwrite", "--quiet") == 0
    assert results(tmp_path) == found


def test_an_interrupt_while_libraries_are_imported(monkeypatch, capfd, heeded):
    class Ended(BaseException):
        pass

    def end(code):
        raise Ended(code)

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}
    monkeypatch.setattr(os, "_exit", end)
    at_exit = []
    monkeypatch.setattr(atexit, "register", at_exit.append)
    try:
        for module, handled in (("xpcs_eqx.fit", True), ("xpcs_eqx.simulation", False)):
            monkeypatch.setattr(sys, "argv", ["-m"])
            monkeypatch.setattr(sys, "orig_argv", ["python", "-m", module])
            for number in numbers:
                signal.signal(number, before[number])
            exec(compile(Path(starting.__file__).read_text(), "starting", "exec"), {})
            for number in numbers:
                handler = signal.getsignal(number)
                assert (handler != before[number]) == handled
                if handled:
                    with pytest.raises(Ended, match="3"):
                        handler(number, None)
                    assert capfd.readouterr().err == "interrupted; nothing was written\n"
        # Only what the program ends is not looked through once more.
        assert at_exit == [gc.freeze]
    finally:
        for number in numbers:
            signal.signal(number, before[number])


def test_an_interrupt_that_a_library_makes_another_error_of(folder, monkeypatch, capsys):
    @contextlib.contextmanager
    def progress(arguments):
        def callback(state):
            try:
                signal.raise_signal(signal.SIGTERM)
            except KeyboardInterrupt:
                raise RuntimeError("lost below Python") from None

        yield callback

    monkeypatch.setattr(program, "_progress", progress)
    assert run(folder) == 3
    assert "interrupted" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_finished_fit_says_so(folder, interrupt, capsys):
    assert run(folder, "--quiet") == 0
    before = content(folder / "fit_results")
    for options in (("--resume",), ("--resume", "--overwrite")):
        assert run(folder, *options) == 0
        assert "the fit is finished, nothing is left to do" in capsys.readouterr().out
        assert content(folder / "fit_results") == before
    # Another one is not: neither with another setting nor with other data.
    assert run(folder, "--resume", "--set", "solver.loss=huber") == 2
    assert "results are already there" in capsys.readouterr().err
    interrupt(3)
    assert run(folder, "--overwrite") == 3
    interrupt(None)
    # Killed when the results were there, and the states of the fit were still to be removed.
    assert checkpoint(folder).exists()
    later = os.stat(next(checkpoint(folder).iterdir())).st_mtime + 1
    os.utime(folder / "fit_results" / "provenance.json", (later, later))
    assert run(folder, "--resume") == 0
    assert "finished" in capsys.readouterr().out
    assert not checkpoint(folder).exists()
    write_own(str(folder / "data.h5"), two_time(n=24, seed=1))
    assert run(folder, "--resume") == 2
    # It ends with what the fit had.
    poor = ("--set", "solver.max_evaluations=1", "--set", "solver.recovery=0")
    assert run(folder, "--overwrite", "--quiet", *poor) == 1
    assert run(folder, "--resume", "--quiet", *poor) == 1


PROGRAM = """
import json, os, sys
import jax
jax.config.update("jax_compilation_cache_dir", sys.argv[1])
from xpcs_eqx import fit as program
for line in sys.stdin:
    # Everything is imported, nothing of JAX runs yet: a child is a fresh process in no time.
    child = os.fork()
    if child == 0:
        print(os.getpid(), flush=True)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os._exit(program.main(json.loads(line)))
    print(os.waitpid(child, 0)[1], flush=True)
"""


@pytest.mark.long
@pytest.mark.skipif(sys.platform == "win32", reason="fork is POSIX")
def test_forty_kills_of_the_program(tmp_path):
    """Results are the old or the new ones, whole, after each; bit for bit the same in the end."""
    folder, first = tmp_path / "run", tmp_path / "first"
    folder.mkdir()
    prepared(folder, n=80)
    settings = [str(folder / "fit.toml"), "--quiet", *QUICKLY, "--set", "solver.checkpoint=true"]
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "compiled")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    place, moments, kills, stages = folder / "fit_results", random.Random(5), 0, Counter()
    with subprocess.Popen(command, **pipes) as process:

        def start(*more):
            process.stdin.write(json.dumps([*settings, *more]) + "\n")
            process.stdin.flush()
            return int(process.stdout.readline())

        def status():
            return int(process.stdout.readline())

        start("--set", "solver.loss=huber", "--set", "solver.loss_scale=0.01")
        assert status() == 0
        shutil.move(place, first)
        for _ in range(2):
            # The second finds everything compiled, as the killed ones will.
            clock = time.monotonic()
            start("--overwrite")
            assert status() == 0
            duration = time.monotonic() - clock
        wanted, whole = results(folder), sorted(content(place))
        old = json.loads((first / "fit" / "parameters.json").read_text())
        del old["timings_s"]
        assert old != wanted
        while kills < 40:
            shutil.rmtree(place)
            shutil.copytree(first, place)
            finished = False
            while not finished:
                child = start("--overwrite", "--resume")
                if kills < 40:
                    time.sleep(moments.uniform(0.0, 1.1 * duration))
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(child, signal.SIGKILL)
                finished = status() == 0
                kills += not finished
                assert sorted(content(place)) == whole
                assert results(folder) in (old, wanted)
                stages["new" if results(folder) == wanted else "old"] += not finished
                stages["states"] += not finished and checkpoint(folder).exists()
            assert results(folder) == wanted
            assert sorted(os.listdir(folder)) == ["data.h5", "fit.toml", "fit_results"]
        process.stdin.close()
        assert process.wait(timeout=60) == 0
    # Not all of them came before there was anything to go on with.
    assert stages["states"] > 5
