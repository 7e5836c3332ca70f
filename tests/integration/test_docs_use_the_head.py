"""docs/use_the_head.md: every snippet runs, in order, and every file and class it names exists."""
import re

import pytest
import torch
from mmdet3d.registry import MODELS

from langocc.models.view_transforms import ego_to_pixels
from langocc.structures import CameraRig


@pytest.fixture
def text(repository):
    return (repository / 'docs/use_the_head.md').read_text()


def test_snippets_run(text, repository, data_roots, monkeypatch):
    monkeypatch.chdir(repository)
    blocks = re.findall(r'```(\w*)\n(.*?)```', text, re.S)
    snippets = [code for language, code in blocks if language == 'python']
    assert len(snippets) > 10 and {language for language, _ in blocks} == {'python', 'bash'}
    names = {}
    seen = {}
    for number, code in enumerate(snippets):
        exec(compile(code, f'use_the_head.md, snippet {number}', 'exec'), names)
        if 'occupancy = model' in code:
            assert names['occupancy'].shape == (16, 16, 4)
            assert names['similarity'].shape == (len(names['occupied']), 2)
        seen.update({key: names[key] for key in ('losses', 'prediction') if key in names})
    MODELS.module_dict.pop('MyDetector')  # registered by the page
    assert {'loss_cls', 'loss_bbox', 'loss_dir', 'loss_lang'} <= set(seen['losses'])
    assert tuple(seen['prediction'].pred_occ.semantics.shape) == (16, 16, 12)
    assert names['feats'].grad.any() and names['logits'].grad.any()
    assert all(torch.isfinite(loss).all() for loss in seen['losses'].values()
               if isinstance(loss, torch.Tensor))


def test_inputs_are_those_of_the_preprocessor(text):
    """The page's table against a batch of two cameras, with points."""
    table = re.search(r'\| key \| shape \| what \|\n(.*?)\n\n', text, re.S)[1]
    keys = re.findall(r'^\| `(\w+)` ', table, re.M)
    shape = (1, 2, 4, 4)
    rig = CameraRig(*[torch.eye(4).expand(shape)] * 4, torch.eye(4))
    item = dict(imgs=torch.zeros(1, 2, 3, 8, 8, dtype=torch.uint8), rig=rig,
                bev_aug_matrix=torch.eye(4), points=torch.zeros(5, 4))
    processed = MODELS.build(dict(type='OccDataPreprocessor'))(
        dict(inputs={key: [value] * 3 for key, value in item.items()}, data_samples=None))
    batch = processed['inputs']
    assert keys == list(batch)
    assert batch['imgs'].shape == (3, 1, 2, 3, 8, 8) and batch['imgs'].dtype == torch.float32
    assert batch['bev_aug_matrix'].shape == (3, 4, 4) and len(batch['points']) == 3
    for name in re.findall(r'`(\w+)`', table.splitlines()[2].split('|')[3]):
        value = getattr(batch['rig'], name)
        assert value.shape == ((3, 4, 4) if name == 'key_ego2global' else (3, *shape)), name
        assert value.dtype == torch.float64
    assert ego_to_pixels(batch['rig'].frame(0), batch['bev_aug_matrix']).shape == (3, 2, 4, 4)


def test_named_files_exist(text, repository):
    named = set(re.findall(r'\b(?:configs|tools|tests|docs)/[\w./-]+\.\w+', text))
    assert len(named) > 6
    assert [name for name in named if not (repository / name).exists()] == []
