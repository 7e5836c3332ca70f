"""Reading and writing checkpoint files: wrappers, both formats, and files that mean harm."""
import os
import pickle

import pytest
import torch
from safetensors.torch import save_file

from langocc.checkpoints import read_checkpoint, write_checkpoint

WEIGHTS = {'conv1.weight': torch.arange(4.).view(2, 2), 'bn1.bias': torch.ones(3)}
OTHER = {name: value + 1 for name, value in WEIGHTS.items()}


def wrapped(state, prefix='module.'):
    return {prefix + name: value for name, value in state.items()}


@pytest.mark.parametrize('content, key, others', [
    (WEIGHTS, '', ()),
    (dict(state_dict=WEIGHTS, meta=dict(epoch=3), optimizer=dict(state={}, param_groups=[])),
     'state_dict', ()),
    (dict(state_dict=wrapped(wrapped(WEIGHTS, '_orig_mod.')), epoch=20, updates=9), 'state_dict',
     ()),
    # mmengine's EMAHook: the average is saved as 'state_dict'
    (dict(state_dict=WEIGHTS, ema_state_dict=dict(wrapped(OTHER), steps=torch.tensor(7))),
     'state_dict', ('ema_state_dict',)),
    (dict(ema_state_dict=dict(wrapped(WEIGHTS), steps=torch.tensor(7))), 'ema_state_dict', ()),
    (dict(state_dict=OTHER, ema_model=WEIGHTS), 'ema_model', ('state_dict',)),
    (dict(model=dict(state_dict=WEIGHTS)), 'model.state_dict', ())])
def test_weights_are_found(content, key, others, tmp_path):
    torch.save(content, tmp_path / 'x.pth')
    asked = 'model.state_dict' if key == 'model.state_dict' else 'auto'
    found = read_checkpoint(tmp_path / 'x.pth', asked)
    assert found.key == key and found.other_keys == others
    assert set(found.tensors) == set(WEIGHTS)
    assert all(torch.equal(found.tensors[name], value) for name, value in WEIGHTS.items())


def test_another_entry_can_be_asked_for(tmp_path):
    torch.save(dict(state_dict=WEIGHTS, ema_state_dict=wrapped(OTHER), meta={}), tmp_path / 'x.pth')
    found = read_checkpoint(tmp_path / 'x.pth', 'ema_state_dict')
    assert torch.equal(found.tensors['bn1.bias'], OTHER['bn1.bias'])
    with pytest.raises(ValueError, match=r"no weights under 'nothing'.*\['ema_state_dict', 'stat"):
        read_checkpoint(tmp_path / 'x.pth', 'nothing')


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_what_is_written_is_read(suffix, tmp_path):
    path = tmp_path / f'new/x{suffix}'
    tensors = dict(WEIGHTS, shared=WEIGHTS['conv1.weight'].t(), half=torch.ones(2).half())
    write_checkpoint(path, tensors, dict(family='langocc', reducer_name='U'))
    found = read_checkpoint(path)
    assert found.conversion == dict(family='langocc', reducer_name='U')
    assert all(torch.equal(found.tensors[name], value) and found.tensors[name].dtype == value.dtype
               for name, value in tensors.items())
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_mmengine_loads_what_is_written(tmp_path):
    from mmengine.runner import load_checkpoint
    model = torch.nn.ModuleDict(dict(bn1=torch.nn.Linear(1, 3)))
    write_checkpoint(tmp_path / 'x.pth', WEIGHTS, {})
    load_checkpoint(model, str(tmp_path / 'x.pth'), strict=False)
    assert torch.equal(model.bn1.bias.detach(), WEIGHTS['bn1.bias'])


def test_only_known_formats_are_written(tmp_path):
    with pytest.raises(ValueError, match='x.bin: expected a name that ends in .pth'):
        write_checkpoint(tmp_path / 'x.bin', WEIGHTS, {})


class Harm:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize('save', ['zip', 'legacy', 'plain'])
def test_a_malicious_pickle_is_refused_and_not_run(save, tmp_path):
    path, mark = tmp_path / 'x.pth', tmp_path / 'mark'
    content = dict(state_dict=dict(WEIGHTS, extra=Harm(mark)))
    if save == 'plain':
        path.write_bytes(pickle.dumps(Harm(mark)))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=save == 'zip')
    with pytest.raises(ValueError, match='x.pth is .* nothing of it was run') as error:
        read_checkpoint(path)
    assert not mark.exists() and '\n' not in str(error.value)
    assert save == 'plain' or "refused: it asks for 'posix.mkdir'" in str(error.value)
    torch.load(path, weights_only=False) if save != 'plain' else pickle.loads(path.read_bytes())
    assert mark.exists()  # it would have done harm


@pytest.mark.parametrize('name', ['x.pth', 'x.safetensors'])
@pytest.mark.parametrize('content', [b'', b'not a checkpoint' * 20])
def test_damaged_files_are_named(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f'{name} is no readable') as error:
        read_checkpoint(tmp_path / name)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('name', ['x.pth', 'x.safetensors'])
def test_a_truncated_file_is_named(name, tmp_path):
    path = tmp_path / name
    write_checkpoint(path, WEIGHTS, {})
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match=f'{name} is no readable'):
        read_checkpoint(path)


def test_other_contents_are_named(tmp_path):
    torch.save([1, 2], tmp_path / 'list.pth')
    with pytest.raises(ValueError, match='list.pth holds a list, expected a dict'):
        read_checkpoint(tmp_path / 'list.pth')
    torch.save(dict(epoch=1), tmp_path / 'none.pth')
    with pytest.raises(ValueError, match=r"no weights under any known key; it has .*'epoch'"):
        read_checkpoint(tmp_path / 'none.pth')
    save_file(WEIGHTS, tmp_path / 'x.safetensors')
    with pytest.raises(ValueError, match='has no entries'):
        read_checkpoint(tmp_path / 'x.safetensors', 'ema')
    with pytest.raises(FileNotFoundError, match='checkpoint .*absent.pth does not exist'):
        read_checkpoint(tmp_path / 'absent.pth')
