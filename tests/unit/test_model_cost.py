"""The cost of a prediction: a network whose operations are known, memory, tables, work folders."""
import importlib.util
import json
from types import SimpleNamespace

import pytest
import torch
from mmdet3d.registry import MODELS
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import init_default_scope
from torch import nn

from langocc.apis import cost_table, measure_cost
from langocc.apis.model_cost import peak_memory

init_default_scope('mmdet3d')


@MODELS.register_module()
class OneConvolution(BaseModel):
    """3 -> 4 channels of six images, and a matrix product without a module."""
    num_adj, stereo = 1, False

    def __init__(self):
        super().__init__(dict(type='OccDataPreprocessor'))
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.frozen = nn.Parameter(torch.zeros(5), requires_grad=False)
        self.img_view_transformer = SimpleNamespace(input_size=(8, 16))

    def forward(self, inputs, data_samples=None, mode='predict'):
        assert mode == 'predict' and not torch.is_grad_enabled()
        assert inputs['imgs'].shape == (1, 2, 6, 3, 8, 16)
        assert inputs['rig'].cam2img.shape == (1, 2, 6, 4, 4)
        feats = self.conv(inputs['imgs'][:, 0].flatten(0, 1))
        self.seen = feats.flatten(2) @ torch.ones(128, 7)
        return data_samples


CONFIG = Config(dict(model=dict(type='OneConvolution')))


def test_operations_are_two_a_multiplication_wherever_they_come_from():
    row = measure_cost(CONFIG, sample=None, repeats=2)
    convolution, product = 2 * 6 * 8 * 16 * 4 * 27, 2 * 6 * 4 * 128 * 7
    assert row['flops'] == convolution + product == sum(row['flops_by_operation'].values())
    assert row['flops_by_operation']['convolution'] == convolution
    assert row['parameters'] == 3 * 4 * 9 + 4 + 5 and row['trained_parameters'] == 112
    assert len(row['seconds_all']) == 2 and min(row['seconds_all']) > 0
    assert row['input'] == 'random images' and row['device'] == 'cpu' and row['machine']
    json.dumps(row)


def test_memory_is_what_the_call_takes():
    held = torch.ones(16 * 2**18)  # 16 MB before: not counted

    def take(megabytes):
        return torch.ones(megabytes * 2**18).sum() + held[0]

    take(100)  # freed before: hides nothing
    assert 45 < peak_memory(lambda: take(50), torch.device('cpu')) < 60


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match='repeats is 0'):
        measure_cost(CONFIG, repeats=0)
    slab = dict(type='ConstantOccupancy', z_range=(-1, 0),
                grid_config=dict(x=[-4, 4, 1.], y=[-4, 4, 1.], z=[-1, 3, 1.]))
    with pytest.raises(ValueError, match='models with num_adj.* not a ConstantOccupancy'):
        measure_cost(Config(dict(model=slab)), sample=None)


def test_a_table_shows_what_there_is():
    row = dict(name='a', trained_parameters=1_234_567, flops=2.5e9, seconds=0.456,
               peak_memory_mb=12.3)
    scored = dict(row, name='b', metrics=dict(geo_IoU=30.04, occ17_mIoU=float('nan')))
    table = cost_table([row, scored]).splitlines()
    assert table[0] == ('| model | parameters, M | GFLOPs | s a prediction | MB a prediction | '
                        'geometric IoU |')
    assert table[2] == '| a | 1.23 | 2.5 | 0.46 | 12 | - |'
    assert table[3] == '| b | 1.23 | 2.5 | 0.46 | 12 | 30.0 |'


def test_runs_are_found_in_work_folders(tmp_path, repository):
    spec = importlib.util.spec_from_file_location('model_cost', repository / 'tools/model_cost.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    config = tmp_path / 'a.py'
    config.write_text('')
    assert tool.find_run(config) == (config, None, {})
    run = tmp_path / 'run'  # of tools/compare.py
    (run / 'train').mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match='run is no config, and there is none in .*train'):
        tool.find_run(run)
    (run / 'train/recipe.py').write_text('')
    (run / 'train/last_checkpoint').write_text('/elsewhere/iter_9.pth\n')
    (run / 'metrics.json').write_text('{"geo_IoU": 3.5}')
    assert tool.find_run(run) == (run / 'train/recipe.py', run / 'train/iter_9.pth',
                                  dict(geo_IoU=3.5))
    (run / 'metrics.json').write_text('{')
    with pytest.raises(ValueError, match='metrics.json is not valid JSON'):
        tool.find_run(run)
    (run / 'train/other.py').write_text('')
    with pytest.raises(ValueError, match=r"several configs: \['other.py', 'recipe.py'\]"):
        tool.find_run(run)
