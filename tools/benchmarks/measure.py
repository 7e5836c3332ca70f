"""Seconds and memory of a function, on a CPU or a GPU."""
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable, List

import torch

from .progress import say, turns

MEGABYTE = 2 ** 20
median = statistics.median


def synchronize(device: torch.device) -> None:
    """Waits for the device."""
    if torch.device(device).type == 'cuda':
        torch.cuda.synchronize()


def run_step(side: Callable, scene):
    """Loss and gradients of one step, and its seconds."""
    device = scene.voxel_feats.device
    synchronize(device)
    start = time.perf_counter()
    loss = side(scene)
    grads = torch.autograd.grad(loss, scene.leaves())
    synchronize(device)
    return loss.item(), grads, time.perf_counter() - start


def seconds_of(function: Callable[[], object], device: torch.device, repeats: int, name: str
               ) -> List[float]:
    """Seconds of ``repeats`` calls after one that warms up; ``name`` is said meanwhile."""
    times = []
    for _ in turns([name], repeats):
        synchronize(device)
        start = time.perf_counter()
        function()
        synchronize(device)
        times.append(time.perf_counter() - start)
    return times[1:]


def busy_seconds() -> float:
    """CPU seconds that all processes of the machine have used; 0 where nobody tells (not Linux)."""
    stat = Path('/proc/stat')
    if not stat.exists():
        return 0.
    user, nice, system, _, _, irq, softirq = map(int, stat.read_text().split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf('SC_CLK_TCK')


class Bystanders:
    """How much of the CPU other processes took meanwhile: timings among others are worth little."""

    def __init__(self):
        self._start = time.perf_counter(), busy_seconds(), self._own()

    @staticmethod
    def _own() -> float:
        return sum(os.times()[:4])

    def share(self) -> float:
        """CPUs that others kept busy since the start, on average."""
        begin, busy, own = self._start
        others = busy_seconds() - busy - (self._own() - own)
        return max(others, 0.) / (time.perf_counter() - begin)


def high_water_mark() -> float:
    """Peak resident memory of this process in MB (Linux: of this program alone)."""
    status = Path('/proc/self/status')
    if status.exists():
        line = next(row for row in status.read_text().splitlines() if row.startswith('VmHWM'))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure_peak(function: Callable[[], object], device: torch.device) -> float:
    """Memory in MB that a call takes beyond what is held now. For a process of its own."""
    if torch.device(device).type == 'cuda':
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        return (torch.cuda.max_memory_allocated() - before) / MEGABYTE
    reset = Path('/proc/self/clear_refs')
    if reset.exists():
        reset.write_text('5')
    before = high_water_mark()
    function()
    return high_water_mark() - before


def peak_in_child(arguments, side: str) -> float:
    """Peak memory in MB of one side of the command, measured in a child process.

    Raises:
        RuntimeError: If the child fails; its output is in the message.
    """
    tool = Path(__file__).resolve().parents[1] / 'benchmark.py'
    command = [sys.executable, str(tool), arguments.command, '--peak-of', side]
    for name in ('preset', 'device', 'rays', 'threshold'):
        if hasattr(arguments, name):
            command += [f'--{name}', str(getattr(arguments, name))]
    if getattr(arguments, 'scale', None):
        command += ['--scale', *(f'{name}={factor}' for name, factor in arguments.scale.items())]
    say(f'{side}: peak memory, in a process of its own')
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f'peak memory of {side}: exit {done.returncode}\n{done.stderr}')
    return float(done.stdout.split()[-1])
