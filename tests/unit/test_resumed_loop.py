"""A resumed training goes on with the samples that come next, and loads no others."""
import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, MODELS
from torch.utils.data import Dataset

from langocc.engine import allow_mmengine_checkpoints, build_runner

LOADED, TRAINED = [], []


class Numbers(Dataset):
    """Ten numbers that tell when they are read."""

    def __len__(self):
        return 10

    def __getitem__(self, index):
        LOADED.append(index)
        return dict(inputs=torch.tensor([float(index)]))


class Line(BaseModel):
    """Tells what it is trained on."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, inputs, mode='tensor'):
        values = torch.stack(inputs) if isinstance(inputs, list) else inputs
        TRAINED.append([int(value) for value in values.flatten()])
        return dict(loss=(values * self.weight).square().mean())


@pytest.fixture(autouse=True)
def registered():
    DATASETS.register_module(name='Numbers', module=Numbers, force=True)
    MODELS.register_module(name='Line', module=Line, force=True)
    allow_mmengine_checkpoints()


def train(folder, steps, sampler='InfiniteSampler', **values):
    """What was trained on, and how many samples were loaded."""
    LOADED.clear(), TRAINED.clear()
    build_runner(Config(dict(
        model=dict(type='Line'), work_dir=str(folder), randomness=dict(seed=3),
        train_dataloader=dict(batch_size=2, num_workers=0, dataset=dict(type='Numbers'),
                              sampler=dict(type=sampler, shuffle=True)),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=steps),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=1e-3)),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=1)),
        default_scope='mmdet3d', experiment_name=f'{folder.name}-{steps}-{len(values)}',
        **values))).train()
    return list(TRAINED), len(LOADED)


def test_goes_on_where_it_stopped_and_loads_nothing_twice(tmp_path):
    whole, _ = train(tmp_path / 'whole', 12)
    first, loaded = train(tmp_path / 'cut', 7)
    assert first == whole[:7] and loaded == 14
    rest, loaded = train(tmp_path / 'cut', 12, resume=True)
    assert rest == whole[7:] and loaded == 10


def test_other_samplers_are_left_to_mmengine(tmp_path):
    whole, _ = train(tmp_path / 'whole', 4, 'DefaultSampler')
    train(tmp_path / 'cut', 2, 'DefaultSampler')
    rest, loaded = train(tmp_path / 'cut', 4, 'DefaultSampler', resume=True)
    assert rest == whole[2:] and loaded == 8


def test_nothing_to_resume_begins_at_the_start(tmp_path):
    assert train(tmp_path / 'a', 3)[0] == train(tmp_path / 'b', 3, resume=True)[0]
