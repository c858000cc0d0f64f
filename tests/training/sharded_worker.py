"""One of several workers of a sharded training, on CPUs: `torchrun sharded_worker.py SETTINGS`.

accelerate shards models on GPUs alone, and goes by the kind of the process group; here it is told
that there are some. Everything else is what a worker on Ray does, but the handing over of
checkpoints.
"""

from __future__ import annotations

import json
import os
import sys
from types import SimpleNamespace

import ray.train
import torch
from accelerate.state import DistributedType, PartialState
from pydantic import TypeAdapter
from torch import distributed
from torch.distributed.fsdp import FSDPModule
from transformers import AutoTokenizer, set_seed
from transformers.modeling_utils import is_fsdp_enabled

from tagsieve.training import TrainConfig
from tagsieve.training.loop import Job, _before_loading, _trainer


def call_cpus_gpus() -> None:
    """Have accelerate take the workers for ones with GPUs."""
    begin = PartialState.__init__

    def begun(self: PartialState, *args: object, **kwargs: object) -> None:
        begin(self, *args, **kwargs)
        state = self._shared_state
        if state.get("distributed_type") == DistributedType.MULTI_CPU:
            state["distributed_type"] = DistributedType.MULTI_GPU

    PartialState.__init__ = begun


class OnCpus(Job):
    """A job whose workers share the model although they have no GPU."""

    @property
    def parallel(self) -> str:
        """As it is set."""
        return self.config.parallel


def main() -> None:
    given = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    call_cpus_gpus()
    ray.train.report = lambda *args, **kwargs: None
    config = TypeAdapter(TrainConfig).validate_python(given["config"])
    board = SimpleNamespace(tell=SimpleNamespace(remote=lambda told: None))
    tokenizer = AutoTokenizer.from_pretrained(config.model)
    job = OnCpus(config, config.model, None, tokenizer, given["rows"], False, board, None,
                 "float32", False, 1)  # fmt: skip
    set_seed(config.seed)
    _before_loading(job)
    once = is_fsdp_enabled()  # what transformers asks before it loads weights
    # Ray Train takes every worker's part of a checkpoint into one folder.
    trainer = _trainer(job, given["folder"])
    trainer.train(resume_from_checkpoint=given.get("checkpoint"))
    if os.environ["RANK"] == "0":
        losses = {row["step"]: row["loss"] for row in trainer.state.log_history if "loss" in row}
        sharded = trainer.is_fsdp_enabled and isinstance(trainer.model, FSDPModule)
        print(f"RESULT {json.dumps({'losses': losses, 'sharded': sharded, 'once': once})}")
    distributed.destroy_process_group()


main()
