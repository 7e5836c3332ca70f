"""docs/use_the_head.md: every snippet runs, in order, and every file and class it names exists."""
import re

import pytest
import torch
from mmdet3d.registry import MODELS


@pytest.fixture
def text(repository):
    return (repository / 'docs/use_the_head.md').read_text()


def test_snippets_run(text, repository, data_roots, monkeypatch):
    monkeypatch.chdir(repository)
    blocks = re.findall(r'```(\w*)\n(.*?)```', text, re.S)
    assert len(blocks) > 10 and {language for language, _ in blocks} == {'python'}
    names = {}
    seen = {}
    for number, (_, code) in enumerate(blocks):
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


def test_named_files_exist(text, repository):
    named = set(re.findall(r'\b(?:configs|tools|tests|docs)/[\w./-]+\.\w+', text))
    assert len(named) > 6
    assert [name for name in named if not (repository / name).exists()] == []
