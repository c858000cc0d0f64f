"""What every benchmark says of itself: the machine, the date, and where its figures go."""

from __future__ import annotations

import asyncio
import gzip
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
DATA = ROOT.parent / "shared" / "data"


def machine() -> dict[str, Any]:
    """Processor, cores, memory, versions and date of this run."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "python": platform.python_version(),
        **_gpu(),
        **_versions("pyspark", "ray", "torch"),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
    }


def _gpu() -> dict[str, str]:
    import torch

    return {"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}


def _versions(*names: str) -> dict[str, str]:
    """Of those that are installed."""
    found = {}
    for name in names:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def alpaca_queries(number: int) -> list[str]:
    """The first distinct queries of Alpaca."""
    queries: dict[str, None] = {}
    with gzip.open(DATA / "pools" / "alpaca.jsonl.gz", "rt") as lines:
        for line in lines:
            row = json.loads(line)
            queries[f"{row['instruction']} {row['input']}".strip()] = None
            if len(queries) == number:
                break
    return list(queries)


def child(script: str, *arguments: str) -> dict[str, Any]:
    """Run one measurement of a script in a process of its own, which prints its figures as a line
    `RESULT {...}`."""
    command = [sys.executable, script, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=child_environment())
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode or not lines:
        sys.exit(f"{' '.join(arguments)} failed:\n{done.stdout[-3000:]}")
    result: dict[str, Any] = json.loads(lines[-1].removeprefix("RESULT "))
    return result


@contextmanager
def serving(script: str, folder: Path) -> Iterator[None]:
    """The child `endpoint` of a script, while the block runs; its address is in `folder/url`."""
    command = [sys.executable, script, "--child", "endpoint", str(folder)]
    server = subprocess.Popen(command, env=child_environment())
    try:
        while not (folder / "url").exists():
            assert server.poll() is None, "the endpoint did not start"
            time.sleep(0.1)
        yield
    finally:
        server.terminate()
        server.wait()


def serve_chats(folder: Path, seconds: float, reply: Callable[[bytes], bytes]) -> None:
    """Answer every chat after so many seconds with what `reply` makes of its body, until this
    process is ended."""
    from aiohttp import web

    async def answer(request: web.Request) -> web.Response:
        body = await request.read()
        await asyncio.sleep(seconds)
        return web.Response(body=reply(body), content_type="application/json")

    async def serve() -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        (folder / "url").write_text(f"http://127.0.0.1:{runner.addresses[0][1]}/v1")
        await asyncio.Event().wait()

    asyncio.run(serve())


def child_environment() -> dict[str, str]:
    """No network, and imports from this checkout."""
    return os.environ | {
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": f"{ROOT / 'lib'}:{ROOT / 'tests'}",
        "VLLM_LOGGING_LEVEL": "ERROR",
    }


def write(name: str, figures: dict[str, Any]) -> None:
    """Store a benchmark's figures beside the machine's, as `results/NAME.json`."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), **figures}, indent=2) + "\n")
    print(f"wrote {path.relative_to(ROOT)}")
