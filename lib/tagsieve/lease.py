"""Leases: a second run for the same work is told so before it starts.

A lease is a small file below the lake that its holder renews. It is a courtesy, not a lock: what
keeps rows from being written twice is the commit itself (`Lake.append_next`).
"""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import fsspec
import psutil

from tagsieve.errors import RunError
from tagsieve.lake import Lake

RENEW_SECONDS = 10.0
STALE_SECONDS = 60.0
"""A lease that was not renewed for so long is taken over. One from this machine is taken over as
soon as its process is gone."""


@contextmanager
def lease(lake: Lake, name: str, run_id: str) -> Iterator[None]:
    """Hold the lease `name` while the block runs; RunError when a living run holds it."""
    path = f"{lake.root.rstrip('/')}/_leases/{re.sub(r'[^A-Za-z0-9._-]', '_', name)}.json"
    files, place = fsspec.core.url_to_fs(path)
    held = read_lease(files, place)
    if held and held["run_id"] != run_id and lives(held):
        age = time.time() - held["renewed"]
        raise RunError(
            f"lake {lake.root}: run {held['run_id']} (process {held['process']} on "
            f"{held['machine']}) is at this work ({name}), its last sign of life was {age:.0f} s "
            "ago; wait for it, or end it. If it is dead, run again in "
            f"{max(STALE_SECONDS - age, 0):.0f} s"
        )
    files.makedirs(place.rsplit("/", 1)[0], exist_ok=True)
    files.pipe_file(place, json.dumps(_mine(run_id)).encode())
    stop = threading.Event()

    def renew() -> None:
        while not stop.wait(RENEW_SECONDS):
            with suppress(OSError):  # of a store that does not answer now; it may at the next
                files.pipe_file(place, json.dumps(_mine(run_id)).encode())

    keeper = threading.Thread(target=renew, daemon=True)
    keeper.start()
    try:
        yield
    finally:
        stop.set()
        keeper.join()
        now = read_lease(files, place)
        if now and now["run_id"] == run_id:
            files.rm_file(place)


def _mine(run_id: str) -> dict[str, Any]:
    me = psutil.Process()
    return {
        "run_id": run_id,
        "machine": socket.gethostname(),
        "process": me.pid,
        "since": me.create_time(),
        "renewed": time.time(),
    }


def read_lease(files: Any, place: str) -> dict[str, Any] | None:
    """What a lease file says; None: there is none."""
    try:
        found: dict[str, Any] = json.loads(files.cat_file(place))
    except (FileNotFoundError, ValueError):  # not there, or cut off while it was written
        return None
    return found


def lives(held: dict[str, Any]) -> bool:
    """Whether a lease's holder still is, for all that can be seen from here."""
    if held["machine"] == socket.gethostname():
        try:
            return bool(psutil.Process(held["process"]).create_time() == held["since"])
        except psutil.NoSuchProcess:
            return False
    return bool(time.time() - held["renewed"] < STALE_SECONDS)
