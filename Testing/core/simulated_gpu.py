"""A GPU without a GPU: tensors that say they are elsewhere, and an overseer that computes with them on the CPU.

Every operation on such a tensor goes through `SimulatedGpu`, which refuses what a real GPU refuses (operands on two
devices), counts what makes one wait for the host, notes the types of numbers used and the memory held. What it computes
is what the CPU computes, so results can be compared to the last bit. Kernels, streams and speed are not simulated.
"""

from collections import Counter
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

# A type of device that PyTorch knows and that nobody has; autograd runs it in the caller's thread.
DEVICE = torch.device("lazy", 0)
ACROSS = {"_to_copy", "copy_", "_local_scalar_dense"}  # what may look at both sides
WAITS = {"_local_scalar_dense", "equal", "is_nonzero", "nonzero", "masked_select", "_unique2"}  # sizes, answers: known
# to the host only when everything before has been computed


class FarTensor(torch.Tensor):
    """A tensor on the simulated GPU; `near` holds its values."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, near: torch.Tensor, held: object):
        far = torch.Tensor._make_wrapper_subclass(
            cls, near.shape, strides=near.stride(), storage_offset=near.storage_offset(), dtype=near.dtype,
            device=DEVICE,
        )  # fmt: skip
        far.near, far.held = near, held
        return far

    def __repr__(self) -> str:
        return f"FarTensor({tuple(self.shape)}, {self.dtype})"

    def tolist(self):
        return self.cpu().tolist()

    def __deepcopy__(self, memo: dict):
        copied = self.detach().clone().requires_grad_(self.requires_grad)
        copied._is_param = getattr(self, "_is_param", False)
        return memo.setdefault(id(self), copied)

    @classmethod
    def __torch_dispatch__(cls, operator, types, arguments=(), named=None):
        raise AssertionError(f"{operator} on a tensor of a GPU that is switched off")


class _Held:
    """Keeps account of the memory of one tensor for as long as that lives."""

    def __init__(self, gpu: "SimulatedGpu", storage: torch.UntypedStorage):
        self.gpu, self.key, self.bytes = gpu, storage.data_ptr(), storage.nbytes()
        gpu.users[self.key] += 1
        if gpu.users[self.key] == 1:
            gpu.held += self.bytes
            gpu.peak = max(gpu.peak, gpu.held)

    def __del__(self):
        self.gpu.users[self.key] -= 1
        if not self.gpu.users[self.key]:
            del self.gpu.users[self.key]
            self.gpu.held -= self.bytes


class SimulatedGpu(TorchDispatchMode):
    """While it is switched on (`with`), tensors may live on DEVICE.

    waits: how often the host waited for the GPU; types: of the numbers computed there; held, peak: bytes now and at
    most. Above `memory` bytes it is full, as a real one.
    """

    def __init__(self, memory: float = float("inf")):
        super().__init__()
        self.memory, self.held, self.peak, self.waits, self.calls = memory, 0, 0, 0, 0
        self.full = False
        self.types: set[torch.dtype] = set()
        self.users: Counter[int] = Counter()
        # These two look at the device behind the overseer's back.
        tensor, autocast = torch.tensor, torch.autocast

        def made(*arguments, device=None, **named):
            return tensor(*arguments, **named) if device is None else tensor(*arguments, **named).to(device)

        class Autocast(autocast):
            def __init__(self, device_type, *arguments, **named):
                super().__init__("cpu" if device_type == DEVICE.type else device_type, *arguments, **named)

        self.patches = [patch.object(torch, "tensor", made), patch.object(torch, "autocast", Autocast)]

    def __enter__(self):
        for patched in self.patches:
            patched.start()
        return super().__enter__()

    def __exit__(self, *error):
        for patched in self.patches:
            patched.stop()
        return super().__exit__(*error)

    def __torch_dispatch__(self, operator, types, arguments=(), named=None):
        named = dict(named or {})
        name = operator.overloadpacket.__name__
        tensors = [t for t in tree_flatten((arguments, named))[0] if isinstance(t, torch.Tensor)]
        far = any(isinstance(t, FarTensor) for t in tensors)
        goal = self._goal(far, named)
        if far and name not in ACROSS:
            strangers = [t for t in tensors if not isinstance(t, FarTensor) and t.dim()]
            assert not strangers, f"{operator}: tensors on the GPU and on the CPU, {tensors}"
        self.calls += far
        self.waits += far and (name in WAITS or (name == "_to_copy" and not goal))
        near = {id(t.near): t for t in tensors if isinstance(t, FarTensor)}
        found = operator(*tree_map(_near, arguments), **tree_map(_near, named))
        return tree_map(lambda value: near.get(id(value), value) if not goal else self._far(value, near), found)

    @staticmethod
    def _goal(far: bool, named: dict) -> bool:
        """Whether the results live on the GPU; whoever computes them is told that this is the CPU."""
        if named.get("device") is None:
            return far
        goal = torch.device(named["device"]).type == DEVICE.type
        named["device"] = torch.device("cpu") if goal else named["device"]
        return goal

    def _far(self, value, near: dict):
        """A tensor as one of the GPU; what was changed in place stays the tensor that it was."""
        if not isinstance(value, torch.Tensor):
            return value
        if id(value) in near:
            return near[id(value)]
        self.types.add(value.dtype)
        if self.held + value.untyped_storage().nbytes() > self.memory:
            self.full = True
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate more than the simulated GPU has.")
        return FarTensor(value, _Held(self, value.untyped_storage()))


def _near(value):
    return value.near if isinstance(value, FarTensor) else value
