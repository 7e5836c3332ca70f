"""One dispatcher for all ops: which implementation answers to which backend.

The torch function is the definition; a faster kernel keeps its signature and is chosen here. Triton
is imported on first use only: it comes with CUDA builds of torch on Linux, and nothing here needs
it otherwise.
"""
import importlib
from functools import lru_cache
from typing import Optional

import torch
from torch import Tensor

BACKENDS = ('auto', 'torch', 'triton')
# Kernels read these and add up in float32; float64 stays with torch.
TRITON_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def resolve_backend(op: str, backend: str, *tensors: Tensor) -> str:
    """Name of the implementation to use for ``op``, ``'torch'`` or ``'triton'``.

    Args:
        op: Name of the operation, for messages.
        backend: ``'auto'`` (Triton where it is there, compiles and takes the tensors, else torch),
            ``'torch'`` or ``'triton'``.
        tensors: Inputs whose device and dtype decide; dtypes of integers do not.

    Raises:
        ValueError: If the backend is unknown.
        RuntimeError: If Triton was asked for and cannot be used; says why.
    """
    if backend not in BACKENDS:
        raise ValueError(f'{op}: backend is {backend!r}, expected one of {BACKENDS}')
    if backend == 'torch' or (backend == 'auto' and not all(x.is_cuda for x in tensors)):
        return 'torch'
    obstacle = _triton_obstacle(tensors)
    if backend == 'auto':
        # Interpreted kernels are for tests: on CUDA tensors, too, torch is faster.
        return 'torch' if obstacle or not tensors or triton_interprets() else 'triton'
    if obstacle:
        raise RuntimeError(f"{op}: backend 'triton' cannot be used: {obstacle}; use 'auto' or "
                           "'torch'")
    return 'triton'


def triton_interprets() -> bool:
    """Whether Triton runs kernels in its interpreter, on tensors of any device.

    It does where TRITON_INTERPRET=1 was in the environment when triton was first imported.
    """
    if import_error() is not None:
        return False
    from triton.language.standard import cdiv
    return type(cdiv).__name__ == 'InterpretedFunction'


@lru_cache(maxsize=None)
def import_error() -> Optional[str]:
    """Why triton cannot be imported, or None."""
    try:
        importlib.import_module('triton.language')
    except Exception as error:  # a broken installation raises all kinds
        return f'{type(error).__name__}: {error}'
    return None


def _triton_obstacle(tensors) -> Optional[str]:
    """What keeps Triton from working on the tensors, or None."""
    if import_error() is not None:
        return f'triton does not import ({import_error()})'
    if len({x.device for x in tensors}) > 1:
        return f'tensors are on {sorted({str(x.device) for x in tensors})}, expected one device'
    for tensor in tensors:
        if not tensor.is_cuda and not triton_interprets():
            return (f'tensors are on {tensor.device} and not on a CUDA device (on a CPU, kernels '
                    'run only with TRITON_INTERPRET=1 in the environment before triton is '
                    'imported)')
        if tensor.is_floating_point() and tensor.dtype not in TRITON_DTYPES:
            return f'kernels work in float32, not in {tensor.dtype}'
    return None
