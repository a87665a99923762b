"""Several processes with one GPU each, started by torchrun: everyone draws other examples, gradients are averaged.

torchrun --nproc_per_node 4 -m neuralreg train CONFIG.toml --device cuda
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn

from ..devices import choose_device


@dataclass(frozen=True)
class Crew:
    """Which of how many processes this is; one alone unless torchrun says otherwise."""

    rank: int = 0
    size: int = 1
    local: int = 0

    @classmethod
    def join(cls, wanted: str) -> Crew:
        """Find the others, once; where there are GPUs, each process computes on one of its own."""
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls()
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if not dist.is_initialized():
            if local < torch.cuda.device_count():
                torch.cuda.set_device(local)
            dist.init_process_group("nccl" if choose_device(_kind(wanted))[0] == "cuda" else "gloo")
        return cls(dist.get_rank(), dist.get_world_size(), local)

    def leave(self) -> None:
        """Wait until everybody is done, then close the connections: a process that just ended would break the last
        exchange of the others. Whoever joins again finds them closed."""
        if self.size > 1 and dist.is_initialized():
            dist.barrier()
            dist.destroy_process_group()

    @property
    def leads(self) -> bool:
        """Whether this process validates, reports and saves."""
        return self.rank == 0

    def device(self, wanted: str) -> str:
        """The device of this process. Raises RegistrationError when it is not there."""
        found, _ = choose_device(_kind(wanted))
        if wanted.startswith("cuda:"):
            return wanted
        return f"cuda:{self.local}" if self.size > 1 and found == "cuda" else found

    def average_gradients(self, network: nn.Module) -> None:
        if self.size == 1:
            return
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        flat = torch.cat([g.flatten() for g in gradients])
        dist.all_reduce(flat)
        flat /= self.size
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def agreed(self, answer: bool, device: str) -> bool:
        """What the leading process answers: nobody may go on alone, or stop alone."""
        if self.size == 1:
            return answer
        said = torch.tensor([float(answer)], device=device)
        dist.broadcast(said, src=0)
        return bool(said.item())


def _kind(wanted: str) -> str:
    """The kind of device: one of several GPUs may be named, as cuda:1."""
    return "cuda" if wanted.startswith("cuda:") else wanted
