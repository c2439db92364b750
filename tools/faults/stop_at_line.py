"""Runs a program of this project, and sends it a signal when it comes to a line.

    python -m tools.faults.stop_at_line LINE SIGNAL SCRIPT [ARGUMENT …]

LINE counts the lines that are executed, from 1, in all threads: those of the project's programs and
of http.client, which sends the requests. Before that line is executed, the process sends itself the
signal SIGNAL, a number. If the program ends by itself, the last line on stdout says how many lines
were executed, as in: lines 1234. LINE 0 never stops it.
"""

from __future__ import annotations

import http.client
import os
import runpy
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any, Callable

import requests  # noqa: F401  so that its import, of which no line counts, is not traced

# Where lines are counted. The run report executes code of both programs.
TRACED_FILES = ("/certbot_renewal_report.py", "/certbot_renewal_run.py", http.client.__file__)

Trace = Callable[[FrameType, str, Any], Any]


class LineCounter:
    """Counts executed lines, and sends this process a signal before one of them."""

    def __init__(self, stop_at: int, signal_number: int) -> None:
        """`stop_at` is the number of a line, from 1."""
        self.stop_at = stop_at
        self.signal_number = signal_number
        self.count = 0

    def trace(self, frame: FrameType, event: str, _: Any) -> Trace | None:
        """Count a line; Python calls this for each function, and for each line of those traced."""
        if not frame.f_code.co_filename.endswith(TRACED_FILES):
            return None
        if event == "line":
            self.count += 1
            if self.count == self.stop_at:
                os.kill(os.getpid(), self.signal_number)
        return self.trace


def main() -> None:
    """Run the program as Python would: with its arguments, and its folder first on the path."""
    counter = LineCounter(int(sys.argv[1]), int(sys.argv[2]))
    del sys.argv[:3]
    script = sys.argv[0]
    sys.path[0] = str(Path(script).parent)

    threading.settrace(counter.trace)
    sys.settrace(counter.trace)
    try:
        runpy.run_path(script, run_name="__main__")
    finally:
        sys.settrace(None)
        print("lines", counter.count)


if __name__ == "__main__":
    main()
