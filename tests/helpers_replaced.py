"""The replacement of results stopped before each of its calls of the system, one after another.

`python helpers_replaced.py FOLDER` prints a line for every way to stop, one for every place where
something is wrong, and `done`. Every stop is one of a process of its own.
"""

import os
import sys

from xpcs_eqx.report import claimed, new_results, target

# What Python says before it asks the system for something; other events are no acts on files.
EVENTS = (
    "open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.listdir",
    "os.scandir", "fcntl.flock", "os.exchange", "os.fsync",
)  # fmt: skip
# More than any of them takes, so that an endless loop ends.
MOST = 300
FAILED, ENDED, KILLED = 1, 0, 9
OLD, NEW, NOTHING = "old", "new", "nothing"


class Stop:
    """Stops this process at a call of the system, counted from 0, once it has been armed.

    - `how`: `"killed"` ends the process there; `"refused"` lets this call fail, `"gone"` this one
      and all that follow, as on a disk that is full or away; `"interrupted"` is Ctrl+C.
    """

    def __init__(self) -> None:
        self.how, self.left, self.last = "", 0, ""

    def __call__(self, event, arguments):
        if not self.how or event not in EVENTS:
            return
        self.left -= 1
        if self.left >= 0 or (self.left < -1 and self.how != "gone"):
            return
        self.last = self.last or f"{event} {arguments[:2]}"
        if self.how == "killed":
            os._exit(KILLED)
        raise KeyboardInterrupt if self.how == "interrupted" else OSError(5, "no more disk")


def fill(folder, text):
    os.mkdir(os.path.join(folder, "fit"))
    for name in ("provenance.json", "fit/report.txt", "fit/data.txt"):
        with open(os.path.join(folder, name), "w") as stream:
            stream.write(text)


def content(place):
    """What results are in a folder: the old ones or the new ones, whole; nothing; else its list."""
    if not os.path.lexists(place):
        return NOTHING
    found = {}
    for folder, _, names in os.walk(place):
        for name in names:
            with open(os.path.join(folder, name)) as stream:
                found[os.path.relpath(os.path.join(folder, name), place)] = stream.read()
    for text in (OLD, NEW):
        if found == dict.fromkeys(("provenance.json", "fit/report.txt", "fit/data.txt"), text):
            return text
    return repr(found)


def replaced(place):
    with claimed(place), new_results(place, True) as folder:
        fill(folder, NEW)


def stopped(stop, how, number, place):
    """Exit status of a process that replaces results and is stopped at a call, and what it is."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        status = ENDED
        stop.how, stop.left = how, number
        try:
            replaced(place)
        except BaseException:
            status = FAILED
        stop.how = ""
        os.write(writing, stop.last.encode()[:500])
        os._exit(status)
    os.close(writing)
    said = os.read(reading, 500).decode()
    os.close(reading)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said


def walk(top, stop, how, before, swaps):
    """Stop at every call; the number of calls, and what was wrong."""
    wrong, seen = [], set()
    for number in range(MOST):
        place = os.path.join(top, f"{how}-{before}-{swaps}-{number}", "results")
        os.mkdir(os.path.dirname(place))
        if before == OLD:
            os.mkdir(place)
            fill(place, OLD)
        status, said = stopped(stop, how, number, place)
        found = [content(place)]
        # Only where the system exchanges folders is there no moment without results.
        allowed = {before, NEW} if swaps or how in ("refused", "interrupted") else None
        if allowed is not None and found[0] not in allowed:
            wrong.append(f"{number} {said}: {found[0]}")
        if status == ENDED and found[0] != NEW:
            wrong.append(f"{number} {said}: ended with {found[0]}")
        # The next one tidies up, and only then writes.
        with claimed(place):
            found.append(content(place))
            if found[1] not in (before, NEW):
                wrong.append(f"{number} {said}: {found[1]} for the next one")
            beside = set(os.listdir(os.path.dirname(place))) - {"results", ".results.lock"}
            if beside:
                wrong.append(f"{number} {said}: left {sorted(beside)}")
        if set(os.listdir(os.path.dirname(place))) - {"results"}:
            wrong.append(f"{number} {said}: a lock is left")
        replaced(place)
        if content(place) != NEW:
            wrong.append(f"{number} {said}: cannot be replaced afterwards")
        # What cannot be tidied up is left for the next one.
        if status == FAILED and said.startswith("os.remove") and how == "refused":
            wrong.append(f"{number} {said}: ended with an error for it")
        seen.add(found[1])
        if status == ENDED and not said:
            return number, seen, wrong
    return MOST, seen, [*wrong, "it never ends"]


def main(top):
    stop, exchange = Stop(), target.exchange
    sys.addaudithook(stop)
    # These say nothing of themselves.
    fsync = os.fsync
    os.fsync = lambda handle: (sys.audit("os.fsync", handle), fsync(handle))[1]

    def audited(one, other):
        sys.audit("os.exchange", one, other)
        return exchange(one, other)

    for swaps in (True, False):
        target.exchange = audited if swaps else lambda one, other: False
        for how in ("killed", "refused", "gone", "interrupted"):
            # Without earlier results nothing is exchanged.
            for before in (OLD, NOTHING) if swaps else (OLD,):
                calls, seen, wrong = walk(top, stop, how, before, swaps)
                print("calls", calls, how, before, swaps, *sorted(seen), flush=True)
                for one in wrong:
                    print("wrong", how, before, swaps, one, flush=True)
    print("done")


if __name__ == "__main__":
    main(sys.argv[1])
