"""Writers that are killed, run side by side, or have no space: nothing is lost, nothing differs."""
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from langocc.feature_store import (
    DamagedStoreError, FeatureStore, FeatureWriter, Int8Codec, finish_store
)
from langocc.feature_store import rank_folder as rank_folder_module
from langocc.feature_store.rank_folder import RankFolder

E, SIZE = 8, (3, 4)
DESCRIPTION = dict(teacher='SomeTeacher', weights_sha256=None, input_size=None)
PART_BYTES = 7 * 12 * E  # seven items
FORK = multiprocessing.get_context('fork')


@pytest.fixture(autouse=True)
def no_wait_for_the_disk(monkeypatch):
    """SIGKILL leaves the page cache alone; waiting for the disk is most of these tests' time."""
    monkeypatch.setattr(os, 'fsync', lambda _: None)


def unit_map(token):
    generator = torch.Generator().manual_seed(int(token[1:]))
    return F.normalize(torch.randn(E, *SIZE, generator=generator), dim=0)


def extract(root, tokens, rank=0, pause=0., part_bytes=PART_BYTES):
    """What an extraction tool does: whatever is not there yet, in order."""
    torch.set_num_threads(1)
    with FeatureWriter(root, Int8Codec(E), DESCRIPTION, rank, part_bytes) as writer:
        for token in tokens:
            if token not in writer:
                writer.write(token, unit_map(token))
                time.sleep(pause)


def tokens_of(count, rank=0, world=1):
    return [f't{i}' for i in range(count)][rank::world]


def files(root):
    return {str(path.relative_to(root)): path.read_bytes()
            for path in Path(root).rglob('*') if path.is_file()}


def in_child(target, *args):
    child = FORK.Process(target=target, args=args)
    child.start()
    return child


def finished(child):
    child.join(60)
    assert child.exitcode is not None
    return child.exitcode


@pytest.fixture
def clean(tmp_path):
    """Files of one run that nobody disturbed."""
    extract(tmp_path / 'clean', tokens_of(60))
    content = files(tmp_path / 'clean')
    assert sum('parts' in name for name in content) == 9 and len(content) == 11
    return content


def test_killed_twenty_times_at_random_and_resumed(tmp_path, clean):
    root, rng, kills, before = tmp_path / 'store', random.Random(0), 0, -1
    while kills < 20:
        # A loaded machine waits longer than told to: slow items leave some for the last kill.
        child = in_child(extract, root, tokens_of(60), 0, 0.025)
        # What is begun anew each time takes longer than some of the waits: kills hit that too.
        time.sleep(rng.uniform(0.001, 0.06))
        os.kill(child.pid, signal.SIGKILL)
        kills += finished(child) == -signal.SIGKILL
        if (root / 'manifest.json').exists():
            store = FeatureStore(root, verify='items')  # whole at every moment
            assert len(store) >= before
            before = len(store)
    assert 0 < before < 60, before
    assert finished(in_child(extract, root, tokens_of(60))) == 0
    assert files(root) == clean
    assert FeatureStore(root, verify='items').digest() == \
        FeatureStore(tmp_path / 'clean').digest()


class Killed(BaseException):
    """Stands for SIGKILL at a chosen step; nothing may tidy up after it."""


def killed_at_step(number, monkeypatch, root, tokens):
    """Whether there were so many changes of the file system that the run ended at ``number``."""
    steps, dead = iter(range(number)), []

    def counted(function):
        def call(*args, **kwargs):
            if next(steps, None) is None:
                dead.append(True)
                raise Killed
            return function(*args, **kwargs)
        return call

    leave, close = RankFolder.leave, RankFolder._close
    with monkeypatch.context() as patch:
        for owner, name in ((os, 'replace'), (os, 'link'), (os, 'fsync'), (os, 'rmdir'),
                            (os, 'mkdir'), (os, 'unlink')):
            patch.setattr(owner, name, counted(getattr(owner, name)))
        patch.setattr(rank_folder_module, 'open', counted(open), raising=False)
        patch.setattr(RankFolder, 'leave', lambda self: close(self) if dead else leave(self))
        try:
            extract(root, tokens, part_bytes=2 * 12 * E)
        except Killed:
            pass
    return bool(dead)


def test_killed_at_every_step_and_resumed(tmp_path, monkeypatch):
    tokens, number = tokens_of(3), 0  # one whole part and the beginning of another
    extract(tmp_path / 'clean', tokens, part_bytes=2 * 12 * E)
    expected = files(tmp_path / 'clean')
    while killed_at_step(number, monkeypatch, tmp_path / f'{number}', tokens):
        root = tmp_path / f'{number}'
        if (root / 'manifest.json').exists():
            FeatureStore(root, verify='items')
        extract(root, tokens, part_bytes=2 * 12 * E)
        assert files(root) == expected, f'killed at step {number}'
        assert not (root / 'pending').exists()
        number += 1
    assert files(tmp_path / f'{number}') == expected and number > 30


def test_a_part_is_on_the_disk_before_its_single_items_go(tmp_path, monkeypatch):
    steps, replace, unlink = [], os.replace, Path.unlink

    def replaced(source, target):
        steps.append(target.parent.name)
        replace(source, target)

    def unlinked(self, **kwargs):
        steps.append(f'remove {self.name}')
        unlink(self, **kwargs)

    monkeypatch.setattr(os, 'fsync', lambda _: steps.append('fsync'))
    monkeypatch.setattr(os, 'replace', replaced)
    monkeypatch.setattr(Path, 'unlink', unlinked)
    extract(tmp_path, tokens_of(1), part_bytes=1)
    begin = steps.index('rank-00000')
    assert steps[begin:begin + 5] == ['rank-00000', 'fsync', 'parts', 'fsync',
                                      'remove 00000000.safetensors']


def test_what_a_power_cut_left_of_an_item_is_made_anew(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        with FeatureWriter(tmp_path, Int8Codec(E), DESCRIPTION) as writer:
            for token in tokens_of(4):
                writer.write(token, unit_map(token))
            raise KeyboardInterrupt
    items = sorted((tmp_path / 'pending' / 'rank-00000').glob('0*'))
    whole = items[2].read_bytes()
    items[0].write_bytes(b'')
    items[1].write_bytes(items[1].read_bytes()[:-5])
    items[2].write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(DamagedStoreError):
        FeatureStore(tmp_path)
    extract(tmp_path, tokens_of(4))
    extract(tmp_path.parent / 'clean', tokens_of(4))
    assert files(tmp_path) == files(tmp_path.parent / 'clean')


@pytest.mark.parametrize('world', [2, 4])
def test_processes_side_by_side_lose_nothing(tmp_path, clean, world):
    root = tmp_path / 'store'
    children = [in_child(extract, root, tokens_of(60, rank, world), rank, 0.001)
                for rank in range(world)]
    opened = 0
    while any(child.is_alive() for child in children):  # and can be read meanwhile
        if (root / 'manifest.json').exists():
            opened = max(opened, len(FeatureStore(root)))
    assert [finished(child) for child in children] == [0] * world
    store = FeatureStore(root, verify='items')
    assert len(store) == 60 >= opened and not (root / 'pending').exists()
    assert store.digest() == FeatureStore(tmp_path / 'clean').digest()


def test_another_number_of_ranks_goes_on_where_the_first_was_killed(tmp_path, clean):
    root = tmp_path / 'store'
    children = [in_child(extract, root, tokens_of(60, rank, 4), rank, 0.01) for rank in range(4)]
    time.sleep(0.15)
    for child in children:
        os.kill(child.pid, signal.SIGKILL)
        finished(child)
    for rank in range(2):
        extract(root, tokens_of(60, rank, 2), rank)
    finish_store(root)
    assert not (root / 'pending').exists()
    assert FeatureStore(root, verify='items').digest() == \
        FeatureStore(tmp_path / 'clean').digest()


def test_one_rank_cannot_be_two_processes(tmp_path):
    with FeatureWriter(tmp_path, Int8Codec(E), DESCRIPTION, rank=3):
        with pytest.raises(ValueError, match='another process is writing to .* as rank 3'):
            extract(tmp_path, tokens_of(1), rank=3)
        with pytest.raises(ValueError, match='as rank 3'):
            finish_store(tmp_path)
        extract(tmp_path, tokens_of(1), rank=4)
    extract(tmp_path, tokens_of(2), rank=3)
    assert len(FeatureStore(tmp_path)) == 2


def test_two_processes_that_begin_a_store_differently_cannot_both(tmp_path, monkeypatch):
    """The second looks for a manifest just before the first has made one."""
    link = os.link

    def link_late(source, target):
        monkeypatch.setattr(os, 'link', link)
        extract(tmp_path, tokens_of(1), rank=1)
        link(source, target)

    monkeypatch.setattr(os, 'link', link_late)
    other = FeatureWriter(tmp_path, Int8Codec(E), dict(DESCRIPTION, teacher='Other'))
    with pytest.raises(ValueError, match="description.teacher is 'SomeTeacher', here 'Other'"):
        with other:
            raise AssertionError('opened')
    assert FeatureStore(tmp_path, verify='items').tokens == ['t0']


@pytest.mark.skipif(not Path('/dev/full').exists(), reason='no /dev/full')
@pytest.mark.parametrize('moment', ['item', 'part'])
def test_a_full_disk_is_named_and_nothing_is_lost(tmp_path, clean, moment):
    root, tokens = tmp_path / 'store', tokens_of(60)
    temporary = root / 'pending' / 'rank-00000' / 'temporary'
    file = {'item': '00000003', 'part': 'parts/rank-00000-000000'}[moment]
    with pytest.raises(OSError, match=f'No space left on device: .*{file}.safetensors'):
        with FeatureWriter(root, Int8Codec(E), DESCRIPTION, 0, PART_BYTES) as writer:
            for token in tokens[:3]:
                writer.write(token, unit_map(token))
            if moment == 'part':
                writer.part_bytes = 1
                keep = writer._folder.publish

                def publish(content, path, **kwargs):
                    if kwargs:
                        temporary.symlink_to('/dev/full')
                    keep(content, path, **kwargs)
                writer._folder.publish = publish
            else:
                temporary.symlink_to('/dev/full')
            writer.write(tokens[3], unit_map(tokens[3]))
    assert len(FeatureStore(root, verify='items')) == {'item': 3, 'part': 4}[moment]
    extract(root, tokens)
    assert files(root) == clean


def write_as_nobody(root):
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    try:
        extract(root, tokens_of(1))
    except PermissionError as error:
        os._exit(7 if str(root) in str(error) else 8)


def test_a_folder_without_rights_is_named(tmp_path):
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    root = tmp_path / 'store'
    root.mkdir(mode=0o555)
    assert finished(in_child(write_as_nobody, root)) == 7
    assert not list(root.iterdir())


def test_a_root_that_is_a_file_is_named(tmp_path):
    root = tmp_path / 'store'
    root.write_text('')
    with pytest.raises(NotADirectoryError, match='store'):
        extract(root, tokens_of(1))


def test_file_systems_without_locks(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(38, 'Function not implemented')
    monkeypatch.setattr(rank_folder_module.fcntl, 'flock', no_locks)
    with pytest.warns(UserWarning, match='cannot be locked .*no two processes write as rank 0'):
        extract(tmp_path, tokens_of(9))
    assert len(FeatureStore(tmp_path, verify='items')) == 9
