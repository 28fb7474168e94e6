"""How the program begins, and ends: what an interrupt does before it can do anything about it.

Imports take a second or two, in which Python would end with a traceback, and some of the libraries
make another error of an interrupt. Nothing is begun yet that could be saved.
"""

import atexit
import gc
import os
import signal
import sys

# While Python looks for the module of its option -m, it imports the package that the module is in.
_AS_MODULE = sys.argv[:1] == ["-m"] and not {"xpcs_eqx", "xpcs_eqx.fit"}.isdisjoint(sys.orig_argv)
if _AS_MODULE or os.path.splitext(os.path.basename(sys.argv[0]))[0] == "xpcs-eqx":
    # All is over then: to look through all objects once more for what can be freed takes 0.3 s.
    atexit.register(gc.freeze)

    def _end(*_: object) -> None:
        os.write(2, b"interrupted; nothing was written\n")
        os._exit(3)

    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _end)
