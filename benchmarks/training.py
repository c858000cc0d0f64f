"""Fine-tuning by the step train's workers on Ray Train, against plain TRL in a process of its own.

    python benchmarks/training.py            # a model of 21 million weights on the cores
    python benchmarks/training.py --gpu      # one of the shape of a 1B Llama on one GPU

Both train the same random model on the same rows of random tokens, half of them answers, by turns,
and must log the same losses. What is compared is the tokens a second of the training itself, with
the checkpoint at its end; starting the workers is told beside it. Needs no Spark.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import common

CPU = {
    "hidden": 384,
    "layers": 6,
    "heads": 6,
    "vocabulary": 8000,
    "tokens": 256,
    "micro": 4,
    "steps": 20,
}
GPU = {"hidden": 2048, "layers": 16, "heads": 32, "vocabulary": 32000, "tokens": 2048, "micro": 4,
       "steps": 60}  # fmt: skip
"""`micro`: rows at a time; a batch is two of them."""

PAIRS = 3


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        which, folder, gpu = options.child
        found = {"make": make, "ours": ours, "plain": plain}[which](Path(folder), gpu == "gpu")
        print(f"RESULT {json.dumps(found)}")
        return
    where = "gpu" if options.gpu else "cpu"
    shape = GPU if options.gpu else CPU
    with tempfile.TemporaryDirectory(prefix="training-") as folder:
        common.child(__file__, "--child", "make", folder, where)
        pairs = []
        for _ in range(PAIRS):
            pair = [common.child(__file__, "--child", which, folder, where)
                    for which in ("ours", "plain")]  # fmt: skip
            mine, theirs = pair
            np.testing.assert_allclose(mine["losses"], theirs["losses"], rtol=1e-3)
            pairs.append({"ours": mine, "plain": theirs})
            print({name: each["tokens_per_second"] for name, each in pairs[-1].items()}, flush=True)
    ratios = [
        pair["ours"]["tokens_per_second"] / pair["plain"]["tokens_per_second"] for pair in pairs
    ]
    speed = statistics.median(pair["ours"]["tokens_per_second"] for pair in pairs)
    start = statistics.median(pair["ours"]["start_seconds"] for pair in pairs)
    ratio = statistics.median(ratios)
    weights = pairs[0]["plain"]["weights"]
    figures = {"shape": shape, "weights": weights, "pairs": pairs, "ratios": ratios}
    what = f"fine-tuning a model of {weights / 1e6:,.0f} million weights"
    told = (f"{speed:,.0f} tokens/s, {ratio:.1%} of plain TRL (same losses); the workers start in "
            f"{start:.0f} s")  # fmt: skip
    common.write(f"training_{where}", figures | {"readme": [[f"{what}, on {where.upper()}", told]]})


def make(folder: Path, gpu: bool) -> dict[str, Any]:
    """The model and the rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from tiny_llama import make_tiny_llama

    shape = GPU if gpu else CPU
    make_tiny_llama(folder / "words")
    AutoTokenizer.from_pretrained(folder / "words").save_pretrained(folder / "model")
    config = LlamaConfig(
        vocab_size=shape["vocabulary"],
        hidden_size=shape["hidden"],
        intermediate_size=4 * shape["hidden"],
        num_hidden_layers=shape["layers"],
        num_attention_heads=shape["heads"],
        num_key_value_heads=max(1, shape["heads"] // 4),
        max_position_embeddings=shape["tokens"],
    )
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    rng = np.random.default_rng(0)
    count = 2 * shape["micro"] * shape["steps"]
    ids = rng.integers(2, shape["vocabulary"], (count, shape["tokens"]))
    labels = ids.copy()
    labels[:, : shape["tokens"] // 2] = -100
    (folder / "rows" / "train").mkdir(parents=True)
    table = pa.table({"input_ids": ids.tolist(), "labels": labels.tolist()})
    pq.write_table(table, folder / "rows" / "train" / "0.parquet")
    return {}


def ours(folder: Path, gpu: bool) -> dict[str, Any]:
    """By the step's own workers."""
    import ray
    from pydantic import TypeAdapter
    from transformers import AutoTokenizer

    from tagsieve.console import Console
    from tagsieve.engines.config import RayConfig
    from tagsieve.engines.ray import start_ray
    from tagsieve.training import TrainConfig
    from tagsieve.training.loop import Board, Job
    from tagsieve.training.running import Workers, run_training

    shape = GPU if gpu else CPU
    config = TypeAdapter(TrainConfig).validate_python(
        {"task": "sft", "model": str(folder / "model"), "batch_size": 2 * shape["micro"],
         "micro_batch_size": shape["micro"], "steps": shape["steps"], "max_tokens": shape["tokens"],
         "checkpoint_steps": shape["steps"], "log_steps": 5, "shuffle": False}
    )  # fmt: skip
    start_ray(RayConfig())
    board = ray.remote(num_cpus=0)(Board).remote()
    cores = os.cpu_count() or 1
    tokenizer = AutoTokenizer.from_pretrained(config.model)
    job = Job(
        config, config.model, None, tokenizer, str(folder / "rows"), False, board, None,
        "bfloat16" if gpu else "float32", gpu, cores,
    )  # fmt: skip
    began = time.perf_counter()
    storage = tempfile.mkdtemp(dir=folder)
    workers = Workers(1, 1 if gpu else cores, int(gpu))
    trained = run_training(job, workers, storage, "ours", True, Console(quiet=True))
    spent = time.perf_counter() - began
    found = told(trained.history, shape)
    return found | {"start_seconds": round(spent - found["seconds"], 1)}


def plain(folder: Path, gpu: bool) -> dict[str, Any]:
    """By TRL alone, as its documentation has it."""
    import datasets
    import torch
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    shape = GPU if gpu else CPU
    if not gpu:
        torch.set_num_threads(os.cpu_count() or 1)
    arguments = SFTConfig(
        output_dir=tempfile.mkdtemp(dir=folder),
        per_device_train_batch_size=shape["micro"],
        gradient_accumulation_steps=2,
        max_steps=shape["steps"],
        learning_rate=2e-5,
        warmup_steps=0.03,
        lr_scheduler_type="linear",
        bf16=gpu,
        use_cpu=not gpu,
        gradient_checkpointing=False,
        max_length=shape["tokens"],
        model_init_kwargs={"dtype": "float32"},
        save_steps=shape["steps"],
        logging_steps=5,
        logging_first_step=True,
        report_to=[],
        disable_tqdm=True,
        train_sampling_strategy="sequential",
        seed=0,
    )
    trainer = SFTTrainer(
        model=str(folder / "model"),
        args=arguments,
        train_dataset=datasets.Dataset.from_parquet(str(folder / "rows" / "train" / "0.parquet")),
        processing_class=AutoTokenizer.from_pretrained(folder / "model"),
    )
    trainer.train()
    weights = sum(each.numel() for each in trainer.model.parameters())
    return told(trainer.state.log_history, shape) | {"weights": weights}


def told(history: list[dict[str, float]], shape: dict[str, int]) -> dict[str, Any]:
    """The losses, and tokens a second by the trainer's own clock."""
    seconds = next(row["train_runtime"] for row in history if "train_runtime" in row)
    tokens = shape["steps"] * 2 * shape["micro"] * shape["tokens"]
    losses = [row["loss"] for row in history if "loss" in row]
    return {"losses": losses, "seconds": seconds, "tokens_per_second": round(tokens / seconds, 1)}


if __name__ == "__main__":
    main()
