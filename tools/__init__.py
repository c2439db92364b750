"""What developers run: servers for the tests, generators, benchmarks, trials, the demo."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
