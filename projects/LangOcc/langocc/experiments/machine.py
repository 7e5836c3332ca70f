"""Where and with what a run was made, in words."""
import os
import subprocess
from pathlib import Path

import torch


def machine_in_words() -> str:
    """For instance '2 CPU cores (AMD EPYC 7763)' or 'NVIDIA H200, 16 CPU cores (...)'."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    name = _cpu_name()
    words = f'{cores} CPU core{"s" * (cores != 1)}' + (f' ({name})' if name else '')
    if torch.cuda.is_available():
        words = f'{torch.cuda.get_device_name()}, {words}'
    return words


def torch_version() -> str:
    """With what it was built for, as in '2.4.1+cpu'."""
    return str(torch.__version__)


def git_commit(folder: Path) -> str:
    """Short hash of the repository around ``folder``, '-dirty' with changes, '' without git."""
    done = subprocess.run(
        ['git', '-C', str(folder), 'describe', '--always', '--abbrev=12', '--dirty', '--exclude=*'],
        capture_output=True, text=True, env=dict(os.environ, GIT_OPTIONAL_LOCKS='0'))
    return done.stdout.strip() if done.returncode == 0 else ''


def _cpu_name() -> str:
    path = Path('/proc/cpuinfo')
    if not path.is_file():
        return ''
    for line in path.read_text(encoding='utf-8', errors='replace').splitlines():
        if line.startswith('model name'):
            return line.split(':', maxsplit=1)[1].strip()
    return ''
