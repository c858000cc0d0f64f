"""Writes the README's table of figures from `results/*.json`."""

from __future__ import annotations

import json

import common

START = "<!-- figures: written by benchmarks/table.py -->\n"
END = "<!-- end of figures -->\n"
ORDER = (
    "start_up", "memory_tagger", "pools",
    "tagging_vllm", "tagging_http", "tagging_memory", "cascade",
    "ontology_scale", "ontology_semantic", "ontology_association", "ontology_truth",
    "ontology_update", "ontology_funnel", "embedding", "screening", "scoring", "judging",
    "selection_paper", "selection_scale_10m", "selection_scale_100m",
    "vectors_alpaca", "vectors_loops", "vectors_million", "vectors_gpu",
    "training_cpu", "training_gpu",
)  # fmt: skip


def main() -> None:
    path = common.ROOT / "README.md"
    before, _, rest = path.read_text(encoding="utf-8").partition(START)
    _, _, after = rest.partition(END)
    path.write_text(f"{before}{START}\n{table()}\n{END}{after}", encoding="utf-8")


def table() -> str:
    """What each benchmark says for the README, and on which machine and day."""
    lines = ["| what | figure | |", "|---|---|---|"]
    machines = {}
    for name in ORDER:
        path = common.RESULTS / f"{name}.json"
        if not path.exists():  # not measured yet
            continue
        result = json.loads(path.read_text(encoding="utf-8"))
        machine = result["machine"]
        told = f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB"
        machines[f"{told}, {machine['gpu']}" if "gpu" in machine else told] = 0
        own = (common.ROOT / "benchmarks" / f"{name}.py").exists()
        script = name if own else name.split("_")[0]
        source = f"`{script}.py`, {machine['date']}"
        lines += [f"| {what} | {figure} | {source} |" for what, figure in result["readme"]]
    return "\n".join([*lines, "", f"Measured on {'; '.join(machines)}.", ""])


if __name__ == "__main__":
    main()
