"""The report hook, certbot_renewal_report.py, which lies beside the folder board/.

All modules of the board import it from here. If it is missing, or of another release, the board
ends with one line on stderr.
"""

import sys
from pathlib import Path
from typing import NoReturn

from renewal_board import NAME, __version__

__all__ = ["ROOT", "hook"]

ROOT = Path(__file__).resolve().parents[2]


def stop(problem: str) -> NoReturn:
    """End the program with a line on stderr and the exit status 2."""
    print(f"{NAME}: {problem}", file=sys.stderr)
    sys.exit(2)


sys.path.insert(0, str(ROOT))
try:
    import certbot_renewal_report as hook
except ModuleNotFoundError as error:
    if error.name != "certbot_renewal_report":
        raise
    stop(f"no certbot_renewal_report.py in {ROOT}: copy it to this folder")

problems = hook.version_problems(__version__, f"{NAME}.py")
if problems:
    stop(problems[0])
