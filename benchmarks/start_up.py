"""What a newcomer waits for: `tagsieve --help`, the demo, and the demo again.

    python benchmarks/start_up.py

First checked: the second demo did nothing (all of its input is known).
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import common
from tagsieve.lake import Lake

TAGSIEVE = str(Path(sys.executable).with_name("tagsieve"))


def main() -> None:
    helped = statistics.median(seconds(["--help"]) for _ in range(9))
    print(f"tagsieve --help: {helped:.2f} s (median of 9)")
    with tempfile.TemporaryDirectory() as folder:
        demo = ["run", "conf/recipes/demo.yaml", f"lake={folder}/lake", f"export.path={folder}/out"]
        first, second = seconds(demo), seconds(demo)
        runs = Lake(f"{folder}/lake").arrow("runs").sort_by("started").to_pylist()
    again = runs[len(runs) // 2 :]
    assert all(row["known"] == row["input"] for row in again), again
    print(f"demo: {first:.0f} s, again: {second:.1f} s")
    common.write(
        "start_up",
        {
            "help_seconds": round(helped, 3),
            "demo_seconds": round(first, 1),
            "demo_again_seconds": round(second, 1),
            "readme": [
                ("`tagsieve --help`", f"{helped:.2f} s"),
                ("the demo, once installed; again", f"{first:.0f} s; {second:.0f} s"),
            ],
        },
    )


def seconds(arguments: list[str]) -> float:
    """Wall time of one command from the root of the checkout; what it prints is not shown."""
    started = time.monotonic()
    subprocess.run([TAGSIEVE, *arguments], check=True, cwd=common.ROOT, stdout=subprocess.PIPE)
    return time.monotonic() - started


if __name__ == "__main__":
    main()
