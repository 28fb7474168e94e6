"""The place of results: whole whenever the program is killed, and for one program at a time."""

import errno
import os
import shutil
import signal
import stat
import subprocess
import sys

import helpers_replaced
import pytest
from helpers_program import prepared, run

from xpcs_eqx.errors import ConfigError
from xpcs_eqx.report import check_target, claimed, new_results, target


def fill(folder, text="1"):
    os.mkdir(os.path.join(folder, "fit"))
    for name in ("provenance.json", "fit/report.txt"):
        with open(os.path.join(folder, name), "w") as stream:
            stream.write(text)


def test_results_appear_whole_or_not_at_all(tmp_path):
    target = tmp_path / "deep" / "results"
    with new_results(str(target), False) as folder:
        assert not target.exists()
        fill(folder)
    assert sorted(os.listdir(target)) == ["fit", "provenance.json"]
    assert os.listdir(target.parent) == ["results"]
    with pytest.raises(ConfigError, match="--overwrite"), new_results(str(target), False):
        pytest.fail("must be refused before any work")
    with new_results(str(target), True) as folder:
        fill(folder, "2")
    assert (target / "provenance.json").read_text() == "2"
    assert os.listdir(target.parent) == ["results"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_keeps_the_earlier_results(tmp_path, error):
    target = tmp_path / "results"
    with new_results(str(target), False) as folder:
        fill(folder)

    def fail():
        with new_results(str(target), True) as folder:
            fill(folder, "2")
            raise error

    with pytest.raises(error):
        fail()
    assert (target / "provenance.json").read_text() == "1"
    assert os.listdir(tmp_path) == ["results"]


class Killed(BaseException):
    """The end of a process: nothing that it does afterwards has an effect."""


ACTS = ((os, "mkdir"), (os, "rename"), (os, "unlink"), (shutil, "rmtree"), (target, "exchange"))


def killed_at(number, monkeypatch, swaps):
    """Kill this process, as it were, at a call of the system, counted from the first."""
    calls = []

    def mortal(act):
        def called(*arguments, **keywords):
            calls.append(act)
            if len(calls) > number:
                raise Killed
            return act(*arguments, **keywords)

        return called

    for module, name in ACTS:
        act = getattr(module, name)
        if name == "exchange" and not swaps:
            act = lambda *_: False  # noqa: E731
        monkeypatch.setattr(module, name, mortal(act))
    return calls


def content(folder):
    return {p.name: p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("swaps", [True, False], ids=["exchange", "two renames"])
def test_whenever_it_is_killed_the_old_or_the_new_results_are_whole(tmp_path, monkeypatch, swaps):
    if swaps and not sys.platform.startswith("linux"):
        pytest.skip("no other system can exchange folders")
    seen = set()
    for number in range(100):
        place = tmp_path / str(number) / "results"
        with new_results(str(place), False) as folder:
            fill(folder)
        old = content(place)
        with monkeypatch.context() as patch:
            calls = killed_at(number, patch, swaps)
            try:
                with claimed(str(place)), new_results(str(place), True) as folder:
                    fill(folder, "2")
                ended = False
            except Killed:
                ended = True
        new = dict.fromkeys(old, "2")
        if swaps:
            # There is no moment without results.
            assert content(place) in (old, new)
        with claimed(str(place)):
            assert content(place) in (old, new)
            seen.add(content(place) == new)
        assert os.listdir(place.parent) == ["results"]
        if not ended:
            break
    # Every call was the last one once.
    assert len(calls) == number >= 5
    assert seen == {True, False}


@pytest.mark.long
@pytest.mark.skipif(os.name != "posix", reason="processes are forked and killed")
def test_whatever_call_of_the_system_it_ends_at_results_are_whole(tmp_path):
    command = [sys.executable, "-W", "ignore", helpers_replaced.__file__, str(tmp_path)]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=500)
    said = done.stdout.splitlines()
    assert said[-1:] == ["done"], (said[-3:], done.stderr[-500:])
    assert not [line for line in said if line.startswith("wrong")]
    walks = [line.split() for line in said if line.startswith("calls")]
    assert len(walks) == 12
    for _, calls, _, before, _, *seen in walks:
        assert int(calls) > 20
        # It was stopped before the results were exchanged as well as afterwards.
        assert seen == sorted({before, "new"})


def test_a_file_system_that_cannot_wait_for_folders_is_written_to(tmp_path, monkeypatch):
    fsync = os.fsync

    def refuses(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", refuses)
    with new_results(str(tmp_path / "results"), False) as folder:
        fill(folder)
    assert (tmp_path / "results" / "provenance.json").read_text() == "1"
    # A disk that fails is another matter.
    monkeypatch.setattr(os, "fsync", failing)
    with (
        pytest.raises(OSError, match="Input/output"),
        new_results(str(tmp_path / "other"), False) as folder,
    ):
        fill(folder)


def failing(handle):
    raise OSError(errno.EIO, "Input/output error")


def test_a_failure_at_any_act_restores_the_earlier_results(tmp_path, monkeypatch):
    place = tmp_path / "results"
    with new_results(str(place), False) as folder:
        fill(folder)
    monkeypatch.setattr(target, "exchange", lambda *_: False)
    rename = os.rename
    for failing in (1, 2):
        calls = []

        def refuses(source, destination, calls=calls, failing=failing):
            calls.append(source)
            if len(calls) == failing:
                raise OSError(errno.ENOSPC, "the disk is full")
            rename(source, destination)

        monkeypatch.setattr(os, "rename", refuses)

        def replace():
            with new_results(str(place), True) as folder:
                fill(folder, "2")

        with pytest.raises(OSError, match="disk is full"):
            replace()
        assert (place / "provenance.json").read_text() == "1"
        assert os.listdir(tmp_path) == ["results"]


def test_what_killed_programs_left_is_removed(tmp_path):
    place = tmp_path / "results"
    for name in (".results.new-1", ".results.new-22", ".results.gone-3", ".results.old-4"):
        (tmp_path / name / "fit").mkdir(parents=True)
    # Names that only look like it belong to somebody else.
    (tmp_path / ".results.new-x").mkdir()
    (tmp_path / ".results.lock").write_text("process 1 on a machine that has gone\n")
    with new_results(str(place), False) as folder:
        fill(folder)
    with claimed(str(place)):
        assert sorted(os.listdir(tmp_path)) == [".results.lock", ".results.new-x", "results"]
        assert str(os.getpid()) in (tmp_path / ".results.lock").read_text()
    assert sorted(os.listdir(tmp_path)) == [".results.new-x", "results"]
    # A process that has the number of one that was killed.
    (tmp_path / f".results.new-{os.getpid()}" / "fit").mkdir(parents=True)
    with new_results(str(place), True) as folder:
        fill(folder, "2")
    assert sorted(os.listdir(tmp_path)) == [".results.new-x", "results"]


@pytest.mark.skipif(os.name != "posix", reason="processes are forked and killed")
def test_a_second_program_is_refused_and_told_of_the_first(tmp_path, capsys):
    folder = prepared(tmp_path)
    place = folder / "fit_results"
    with claimed(str(place)):
        with (
            pytest.raises(ConfigError, match=f"process {os.getpid()} on .* is writing"),
            claimed(str(place)),
        ):
            pytest.fail("must not be given twice")
        for option in ("--overwrite", "--resume"):
            assert run(folder, option) == 2
            assert "is writing these results; wait until it has ended" in capsys.readouterr().err
        assert run(folder, "--check") == 0
        # Another folder is another matter.
        with claimed(str(folder / "other" / "results")):
            assert (folder / "other").exists()
        assert not (folder / "other").exists()
    with claimed(str(place)):
        pass


KILLED = """
import os, signal, sys
from xpcs_eqx.report.target import claimed
with claimed(sys.argv[1]):
    os.mkdir(os.path.join(os.path.dirname(sys.argv[1]), f".results.new-{os.getpid()}"))
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(os.name != "posix", reason="processes are forked and killed")
def test_the_lock_of_a_killed_process_holds_nobody_back(tmp_path):
    place = tmp_path / "results"
    done = subprocess.run([sys.executable, "-c", KILLED, str(place)], timeout=300)
    assert done.returncode == -signal.SIGKILL
    assert len(os.listdir(tmp_path)) == 2
    with claimed(str(place)):
        assert os.listdir(tmp_path) == [".results.lock"]
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "place", ["/proc/xpcs", "/proc", "/dev/null", "/", "a\0b", "x" * 250, "é" * 120, "/dev/null/x"]
)
def test_places_that_cannot_be_are_refused_before_any_work(tmp_path, capsys, place, monkeypatch):
    folder = prepared(tmp_path)
    monkeypatch.chdir(folder)
    assert run(folder, "--output", place) == 2
    assert "error: " in capsys.readouterr().err
    assert sorted(os.listdir(folder)) == ["data.h5", "fit.toml"]


def test_folders_that_are_no_results_are_never_replaced(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match=r"thesis\.tex, which no fit wrote"):
        check_target(str(tmp_path), True)
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ConfigError, match="a file is in the place"):
        check_target(str(file), True)
    with pytest.raises(ConfigError, match="not a writable folder"):
        check_target(str(file / "results"), True)
    results = tmp_path / "results"
    results.mkdir()
    check_target(str(results), False)
    fill(str(results))
    with pytest.raises(ConfigError, match=r"would replace .*report\.txt"):
        check_target(str(results), True, (str(results / "fit" / "report.txt"),))
