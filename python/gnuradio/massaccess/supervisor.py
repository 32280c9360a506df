"""Makes a program that GNU Radio Companion generated fail visibly when a block fails."""

import atexit
import os
import sys
import threading

from ._base import failures


class supervisor:
    """Watches the blocks of this package on behalf of the flowgraph ``tb``: no ports, put one into every flowgraph.

    When a block fails, the reason goes to standard error, the flowgraph stops, a Qt window closes, and the program ends with exit code 1.
    (Without it, programs from GRC report success whatever happened.)
    """

    def __init__(self, tb):
        self._tb = tb
        self._lock = threading.Lock()
        self._reported = False
        threading.Thread(target=self._watch, daemon=True, name="massaccess-supervisor").start()
        atexit.register(self._exit_code)

    def _watch(self):
        failures.event.wait()
        self._report()
        self._tb.stop()
        qt = sys.modules.get("PyQt5.QtCore")
        if qt and qt.QCoreApplication.instance():
            qt.QMetaObject.invokeMethod(qt.QCoreApplication.instance(), "quit", qt.Qt.QueuedConnection)

    def _report(self):
        with self._lock:
            if not self._reported:
                self._reported = True
                print(f"massaccess: {failures.first}", file=sys.stderr, flush=True)

    def _exit_code(self):
        """Exit handlers cannot change the exit code, so this one ends the process."""
        if failures.first:
            self._report()
            sys.stdout.flush()
            os._exit(1)
