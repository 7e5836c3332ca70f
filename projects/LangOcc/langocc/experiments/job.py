"""One run in stages: training, metrics, retrieval, cost; each can be cut off and taken up.

A run's folder holds ``state.json`` (definition and attempts), ``train/`` (mmengine's work
directory), ``test/``, the logs, ``metrics.json``, ``retrieval.json``, ``cost.json`` and, where it
failed, ``failure.json``.
"""
import fcntl
import json
import os
import re
import shutil
import sys
import time
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from ..files import write_json
from .child import Child, last_lines
from .definition import Run, expand_variables
from .fingerprint import describe_change, environment_of, fingerprint, option_arguments
from .machine import git_commit, machine_in_words, torch_version

STAGES = ('train', 'test', 'retrieval', 'cost')
NO_VALIDATION = ('val_cfg=None', 'val_dataloader=None', 'val_evaluator=None')
_ITERATION = re.compile(r'Iter\(train\)\s*\[\s*(\d+)/\s*(\d+)\].*?\btime: ([\d.]+)')


class Job:
    """A run in its folder.

    Args:
        run: the run.
        definition: of the run.
        folder: of the run.
        tools: folder of train.py, test.py, eval_retrieval.py and model_cost.py.

    Attributes:
        state: what ``state.json`` holds: definition, attempts of stages; ``trained_as``: the
            definition of the training, where its scores are of another.
        failure: stage, exit status and last lines of the log, where it failed this time.
        anew: what is in the folder will be removed before the first stage.
    """

    def __init__(self, run: Run, definition: Dict[str, Any], folder: Path, tools: Path):
        self.run, self.definition, self.folder, self.tools = run, definition, folder, tools
        self.state = self._read_state()
        self.failure: Optional[Dict[str, Any]] = None
        self.anew = False
        self._child: Optional[Child] = None
        self._stage = ''
        self._lock = -1

    @property
    def other_definition(self) -> Optional[Dict[str, Any]]:
        """The definition that checkpoints or metrics in the folder were made of, if another."""
        worth = self.checkpoint() is not None or (self.folder / 'metrics.json').is_file()
        return self.state['definition'] if self.is_stale and worth else None

    @property
    def is_stale(self) -> bool:
        """Whether the folder belongs to another definition."""
        return self.state.get('definition', self.definition) != self.definition

    @property
    def running(self) -> bool:
        """A stage is under way."""
        return self._child is not None

    @property
    def stage(self) -> str:
        """The stage under way, '' for none."""
        return self._stage

    def next_stage(self) -> Optional[str]:
        """The first stage that is not finished; None where all are."""
        if self.run.train and not self._trained():
            return 'train'
        if not (self.folder / 'metrics.json').is_file():
            return 'test'
        if self.run.retrieval and not (self.folder / 'retrieval.json').is_file():
            return 'retrieval'
        if self.run.cost and not (self.folder / 'cost.json').is_file():
            return 'cost'
        return None

    def lock(self, wait: float = 5.) -> bool:
        """Take the folder; False where another process works in it for ``wait`` seconds more.

        The tools of a run hold the lock too: one that outlives a killed runner ends in that time.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.folder / 'lock', os.O_RDWR | os.O_CREAT)
        deadline = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() < deadline:
                    time.sleep(0.1)
                    continue
                self.unlock()
                return False
            self.state = self._read_state()
            return True

    def unlock(self) -> None:
        """Leave the folder."""
        if self._lock >= 0:
            os.close(self._lock)
        self._lock = -1

    def clear(self) -> None:
        """Remove everything of the run but the lock; needs :meth:`lock`."""
        self._remove_but('lock')
        self.state, self.anew = {}, False

    def keep_training(self) -> None:
        """Take the training as one of this definition and remove what was measured of it; needs
        :meth:`lock`. Cut off in between, the folder is still the other definition's."""
        trained_as = self.state.get('trained_as', self.state['definition'])
        self._remove_but('lock', 'state.json', 'train', 'train.log')
        self.state = dict(definition=self.definition, fingerprint=fingerprint(self.definition),
                          attempts=self.attempts('train'))
        if trained_as != self.definition:
            self.state['trained_as'] = trained_as
        self._write_state()

    def why_not_scored_anew(self) -> str:
        """Why :meth:`keep_training` cannot serve, '' where it can."""
        if self.is_stale:
            before = self.state['definition']
            parts = [key for key in self.definition if key not in ('config', 'options')
                     and before.get(key) != self.definition[key]]
            if parts:
                return (f'{describe_change(before, self.definition)}; a training is kept where its '
                        'config and options alone differ')
        if self.run.cost:
            return 'its cost is measured with the config that the training left'
        if self.run.train and not self._trained():
            return f'no trained checkpoint of it is in {self.folder}'
        return ''

    def advance(self, environment: Dict[str, str]) -> bool:
        """Look at the stage under way and start the next; True while there is something to do.

        Args:
            environment: variables for the stages beside the run's own.
        """
        if self._child is not None:
            status = self._child.poll()
            if status is None:
                return True
            self._end_attempt(status)
            if self.failure is not None:
                return False
        stage = self.next_stage()
        if stage is None:
            return False
        self._start(stage, environment)
        return True

    def stop(self) -> None:
        """End the stage under way; it can be taken up again."""
        if self._child is not None:
            self._child.stop()
            self._end_attempt(self._child.poll(), stopped=True)

    def progress(self) -> Optional[Tuple[int, int, float]]:
        """Step, steps and seconds a step that the training's log told last."""
        for line in reversed(last_lines(self.folder / 'train.log', 2000)):
            match = _ITERATION.search(line)
            if match:
                return int(match[1]), int(match[2]), float(match[3])
        return None

    def attempts(self, stage: str) -> List[Dict[str, Any]]:
        """What is known of the attempts of a stage, oldest first."""
        return [item for item in self.state.get('attempts', []) if item['stage'] == stage]

    def command(self, stage: str) -> List[str]:
        """Program and arguments of a stage."""
        run, train_dir = self.run, self.folder / 'train'
        options = option_arguments(run)
        checkpoint = [str(self.checkpoint() or train_dir / 'CHECKPOINT')] if run.train else []
        if stage == 'train':
            options = [f'default_hooks.checkpoint.interval={run.save_every}', *NO_VALIDATION,
                       *options]
            words = ['train.py', run.config, '--work-dir', str(train_dir), '--resume']
        elif stage == 'test':
            words = ['test.py', run.config, *checkpoint, '--work-dir', str(self.folder / 'test'),
                     '--out', str(self.folder / 'metrics.json')]
        elif stage == 'cost':  # of the config that the training left, options and all
            words, options = ['model_cost.py', str(self.folder)], []
        else:
            benchmark = expand_variables(run.retrieval, f"run {run.name}, key 'retrieval'")
            words = ['eval_retrieval.py', run.config, *checkpoint, '--benchmark', benchmark,
                     '--out', str(self.folder / 'retrieval.json')]
        options = ['--cfg-options', *options] if options else []
        return [sys.executable, str(self.tools / words[0]), *words[1:], *options]

    def checkpoint(self) -> Optional[Path]:
        """The checkpoint that the training wrote last, None for none."""
        record = self.folder / 'train' / 'last_checkpoint'
        if not record.is_file():
            return None
        path = record.parent / Path(record.read_text().strip()).name  # the folder may have moved
        return path if path.is_file() else None

    def _trained(self) -> bool:
        finished = any(item.get('status') == 0 for item in self.attempts('train'))
        checkpoint = self.checkpoint()
        if checkpoint is None:
            return False
        return finished or checkpoint.stem == f'iter_{self.run.steps}'

    def _start(self, stage: str, environment: Dict[str, str]) -> None:
        attempt = dict(stage=stage, started=time.time(), commit=git_commit(self.tools),
                       machine=machine_in_words(), torch=torch_version(),
                       threads=environment.get('OMP_NUM_THREADS'))
        self.state = dict(self.state, definition=self.definition,
                          fingerprint=fingerprint(self.definition),
                          attempts=[*self.state.get('attempts', []), attempt])
        (self.folder / 'failure.json').unlink(missing_ok=True)
        self._write_state()
        self._stage = stage
        self._child = Child(self.command(stage), self.folder / f'{stage}.log',
                            {**environment, **environment_of(self.run)}, self._lock)

    def _end_attempt(self, status: int, stopped: bool = False) -> None:
        child, stage, self._child, self._stage = self._child, self._stage, None, ''
        self.state['attempts'][-1].update(
            status=status, seconds=round(child.seconds, 1),
            cpu_seconds=round(child.cpu_seconds, 1), peak_mb=round(child.peak_mb))
        self._write_state()
        if not stopped and (status != 0 or self.next_stage() == stage):
            self.failure = dict(stage=stage, status=status,
                                log=last_lines(self.folder / f'{stage}.log'))
            write_json(self.folder / 'failure.json', self.failure, indent=1)

    def _remove_but(self, *names: str) -> None:
        for path in self.folder.iterdir():
            if path.name in names:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    def _read_state(self) -> Dict[str, Any]:
        path = self.folder / 'state.json'
        if not path.is_file():
            return {}
        state = json.loads(path.read_text(encoding='utf-8'))
        for attempt in state['attempts']:
            if 'seconds' not in attempt:  # its end was not seen: it worked until its last line
                log = self.folder / f'{attempt["stage"]}.log'
                end = log.stat().st_mtime if log.is_file() else attempt['started']
                attempt['seconds'] = round(max(end - attempt['started'], 0.), 1)
        return state

    def _write_state(self) -> None:
        write_json(self.folder / 'state.json', self.state, indent=1)
