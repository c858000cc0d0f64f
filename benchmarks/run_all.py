"""All benchmarks, then the README's table from their figures: `make bench`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPTS = (
    "start_up.py", "memory_tagger.py", "pools.py", "tagging.py", "cascade.py", "ontology.py",
    "embedding.py", "screening.py", "scoring.py", "judging.py", "selection.py",
    "vectors.py", "training.py", "table.py",
)  # fmt: skip


def main() -> None:
    for script in SCRIPTS:
        print(f"== {script}", flush=True)
        subprocess.run([sys.executable, str(Path(__file__).with_name(script))], check=True)


if __name__ == "__main__":
    main()
