"""A sub-process with its log, its time and its memory."""
import ctypes
import os
import resource
import signal
import subprocess
import time
from pathlib import Path
from typing import Dict, List, Optional, Sequence


class Child:
    """A command in a process group of its own, output appended to a log.

    A group of its own means that Ctrl-C at the terminal reaches the runner alone, which then stops
    its children in order; where the runner itself is killed, Linux sends the child a SIGTERM.

    Args:
        command: program and arguments.
        log: file.
        environment: variables beside those of this process.
        lock: open file that the child keeps open: a lock on it lasts as long as either lives.

    Attributes:
        seconds: wall-clock time, once it has ended; likewise ``cpu_seconds`` of the command and the
            processes that it waited for, and ``peak_mb``, the largest resident size of any of them.
    """

    def __init__(self, command: Sequence[str], log: Path, environment: Dict[str, str], lock: int):
        self.seconds = self.cpu_seconds = self.peak_mb = 0.
        self._start = time.monotonic()
        self._status: Optional[int] = None
        with open(log, 'a', encoding='utf-8') as output:
            output.write(f'$ {" ".join(command)}\n')
            output.flush()
            self._process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                env={**os.environ, **environment}, start_new_session=True, pass_fds=(lock, ),
                preexec_fn=_end_with_parent)

    @property
    def pid(self) -> int:
        """Process id, and that of its group."""
        return self._process.pid

    def poll(self) -> Optional[int]:
        """None while it runs, then the exit status; negative: the signal that ended it."""
        if self._status is None:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                self._finish(os.waitstatus_to_exitcode(status), usage)
        return self._status

    def stop(self, grace: float = 20.) -> None:
        """SIGTERM to the group, SIGKILL after ``grace`` seconds; returns when it has ended."""
        self._signal(signal.SIGTERM)
        deadline = time.monotonic() + grace
        while self.poll() is None:
            if time.monotonic() > deadline:
                self._signal(signal.SIGKILL)
            time.sleep(0.05)

    def _signal(self, number: int) -> None:
        if self.poll() is None:
            os.killpg(self.pid, number)

    def _finish(self, status: int, usage: resource.struct_rusage) -> None:
        self._status = self._process.returncode = status  # Popen need not wait for it any more
        self.seconds = time.monotonic() - self._start
        self.cpu_seconds = usage.ru_utime + usage.ru_stime
        self.peak_mb = usage.ru_maxrss / 1024


def last_lines(log: Path, count: int = 15) -> List[str]:
    """The last lines of a log, [] where there is none; reads no more than its last 64 kB."""
    if not log.is_file():
        return []
    with open(log, 'rb') as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - 65536, 0))
        return file.read().decode('utf-8', 'replace').splitlines()[-count:]


def _end_with_parent() -> None:
    """Linux: SIGTERM when the parent dies; elsewhere nothing."""
    set_death_signal = 1
    try:
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGTERM)
    except (OSError, AttributeError):
        pass
