"""Ray clusters of real processes beside the tests' own Ray: a head, nodes that can be killed."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

RAY = str(Path(sys.executable).parent / "ray")


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def clean_environment(**settings):
    """The tests' environment without what an engine of this process has put there."""
    engine = re.compile(r"^(PYSPARK_|SPARK_|RAY_)")
    kept = {name: value for name, value in os.environ.items() if not engine.match(name)}
    return kept | settings


class RayCluster:
    """A head with a HOME of its own for its token; every member is a process group of its own."""

    def __init__(self, folder, head_cpus):
        self.port, self.dashboard, agent = free_ports(3)
        self.address = f"127.0.0.1:{self.port}"
        self.dashboard_address = f"http://127.0.0.1:{self.dashboard}"
        self._folder = folder
        self.environment = clean_environment(
            HOME=str(folder),
            XDG_CACHE_HOME=os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache")),
            RAY_AUTH_MODE="token",
            PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        )
        subprocess.run(
            [RAY, "get-auth-token", "--generate"],
            env=self.environment,
            check=True,
            capture_output=True,
        )
        self.members = []
        self.head = self._start(
            "--head", f"--port={self.port}", "--dashboard-host=127.0.0.1",
            f"--dashboard-port={self.dashboard}", f"--num-cpus={head_cpus}",
            # Its default is taken by the tests' own Ray, and without its agent no job can start.
            f"--dashboard-agent-listen-port={agent}",
        )  # fmt: skip
        self._wait()

    def add_node(self, cpus):
        """One more node; gives its process."""
        (agent,) = free_ports(1)
        return self._start(
            f"--address={self.address}", f"--num-cpus={cpus}",
            f"--dashboard-agent-listen-port={agent}",
        )  # fmt: skip

    def _start(self, *options):
        command = [
            RAY, "start", "--block", "--node-ip-address=127.0.0.1", "--disable-usage-stats",
            "--object-store-memory=200000000", *options,
        ]  # fmt: skip
        log = self._folder / f"member{len(self.members)}.log"
        with log.open("w") as out:
            member = subprocess.Popen(
                command, env=self.environment, stdout=out, stderr=out, start_new_session=True
            )
        self.members.append(member)
        return member

    def _wait(self):
        deadline = time.monotonic() + 120
        while self.head.poll() is None and time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.dashboard)) == 0:
                    return
            time.sleep(0.5)
        said = (self._folder / "member0.log").read_text()
        pytest.fail(f"the Ray head did not start: {said[-2000:]}")

    @staticmethod
    def kill(member):
        """End a member and all its processes at once."""
        os.killpg(member.pid, signal.SIGKILL)
        member.wait()

    def stop(self):
        for member in reversed(self.members):
            if member.poll() is None:
                os.killpg(member.pid, signal.SIGTERM)
                try:
                    member.wait(60)
                except subprocess.TimeoutExpired:
                    self.kill(member)


@pytest.fixture
def start_cluster(tmp_path):
    """Starts a cluster; its members end with the test."""
    started = []

    def start(head_cpus):
        started.append(RayCluster(tmp_path, head_cpus))
        return started[-1]

    yield start
    for cluster in started:
        cluster.stop()
