"""How long `crossmatch COMMAND --help` takes of one core, beside what it cannot do without: Python, typer and pydantic.

python benchmarks/start.py: half a minute. The aim is 0.5 s for the slowest command.
"""

import platform
import subprocess
import sys

from typer.main import get_command

from crossmatch.cli import app

REPEATS = 5


def least_seconds(code: str) -> float:
    """CPU seconds of a Python process that runs `code`, the least of REPEATS."""
    timed = f"import time\n{code}\nprint(time.process_time())"
    command = [sys.executable, "-c", timed]
    outputs = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(REPEATS)]
    return min(float(output.split()[-1]) for output in outputs)


def main() -> None:
    print(f"{platform.python_implementation()} {platform.python_version()}, least of {REPEATS}, CPU seconds\n")
    bare = least_seconds("import typer, pydantic")
    print(f"{'python':24}{least_seconds(''):6.3f}\n{'typer and pydantic':24}{bare:6.3f}")
    commands = getattr(get_command(app), "commands", {})
    for name in ("", *commands):
        words = [*name.split(), "--help"]
        seconds = least_seconds(f"from crossmatch.cli import run\nrun({words})")
        print(f"{'crossmatch ' + name:24}{seconds:6.3f}  x {seconds / bare:.1f}")


if __name__ == "__main__":
    main()
