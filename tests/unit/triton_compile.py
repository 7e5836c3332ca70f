"""Compiles every Triton kernel for a GPU that need not be there: python triton_compile.py 80 90.

The arguments are compute capabilities. The ops run on small CPU tensors with the launch replaced
by a compilation, down to the GPU's machine code, for what they would launch with; prints a JSON
object, kernel name -> list of [target, signature]. To be run without TRITON_INTERPRET.
"""
import json
import sys
from collections import defaultdict

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from voxelrender import VoxelGrid, lift_splat, ops, sparse_product, stereo_cost_volume
from voxelrender.ops import dispatch

NAMES = {torch.float32: '*fp32', torch.float64: '*fp64', torch.float16: '*fp16',
         torch.bfloat16: '*bf16', torch.int64: '*i64'}
COMPILED = defaultdict(list)


def type_name(value):
    """How Triton takes an argument: whole numbers of 1 become constants, as at a real launch."""
    if isinstance(value, torch.Tensor):
        return NAMES[value.dtype]
    if isinstance(value, float):
        return 'fp32'
    return 'constexpr' if value == 1 else 'i32'


def compiling(targets):
    """A stand-in for `JITFunction.run` that compiles for each target."""
    def run(self, *args, grid, warmup, **kwargs):
        values = {**dict(zip(self.arg_names, args)), **kwargs}
        signature = {name: 'constexpr' if name in kwargs else type_name(values[name])
                     for name in self.arg_names}
        constants = {name: values[name] for name, kind in signature.items() if kind == 'constexpr'}
        for target in targets:
            source = ASTSource(self, dict(signature), dict(constants))
            kernel = triton.compile(source, target=GPUTarget('cuda', target, 32))
            assert len(kernel.asm['cubin']) > 0
            COMPILED[self.__name__].append([target, str(sorted(signature.items()))])
    return run


def call_all(size, dtype):
    """Every op forward and backward, with all counts ``size``; features and volumes of a dtype."""
    rows = torch.zeros(size, dtype=torch.long)
    feats = torch.randn(size, size).to(dtype).requires_grad_()
    values = torch.randn(size, requires_grad=True)
    sparse_product(rows, rows, values, feats, size, 'triton').sum().backward()
    grid = VoxelGrid((0, 0, 0, size, size, size), (1, 1, 1), 'edges' if size == 1 else 'centers')
    shape = (1, 1, size, size, size)
    lift_splat(torch.rand(shape), torch.rand(shape).to(dtype), torch.rand(*shape, 3), grid,
               backend='triton')
    maps = torch.rand(1, size, size, size).to(dtype)
    geometry = torch.float32 if size == 1 else torch.float64
    stereo_cost_volume(maps, maps, torch.eye(4, dtype=geometry)[None], torch.ones(size),
                       (size, size), published_invalid=size == 1, backend='triton')
    volume = torch.rand(grid.volume_shape).to(dtype).requires_grad_()
    points = torch.rand(size, 3)
    ops.sample_volume(grid, volume, points, 'triton').sum().backward()
    ops.point_corners(grid, points, 'triton')
    edges = torch.rand(size, size + 1).cumsum(-1)
    ops.importance_samples(edges, torch.rand(size, size), size, 'triton')
    sigmas = torch.rand(size, size, requires_grad=True)
    weights, _ = ops.composite(sigmas, edges[:, :-1], edges[:, 1:], 'triton')
    weights.sum().backward()


if __name__ == '__main__':
    JITFunction.run = compiling([int(target) for target in sys.argv[1:]])
    dispatch.triton_interprets = lambda: True
    call_all(1, torch.float32)
    call_all(5, torch.bfloat16)
    print(json.dumps(COMPILED))
