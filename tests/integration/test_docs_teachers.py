"""docs/teachers.md: recipes load and say what the page says, commands have their options."""
import re
from pathlib import Path

import pytest
from mmdet3d.registry import METRICS, TASK_UTILS, TRANSFORMS
from mmengine.config import Config
from mmengine.registry import init_default_scope

PAGE = Path(__file__).resolve().parents[2] / 'docs' / 'teachers.md'


def blocks(language):
    return re.findall(rf'```{language}\n(.*?)```', PAGE.read_text(), re.S)


def recipe(part, repository, folder):
    """The recipe of the page that has ``part``, as a user's file beside the shipped ones."""
    text = next(block for block in blocks('python') if '_base_ =' in block and part in block)
    path = folder / 'mine.py'
    path.write_text(text.replace("_base_ = ['", f"_base_ = ['{repository}/configs/"))
    init_default_scope('mmdet3d')
    return Config.fromfile(path)


def transform(cfg, split, name):
    return next(t for t in cfg[f'{split}_dataloader'].dataset.pipeline if t.type == name)


def test_a_recipe_that_reads_a_store(repository, tmp_path, data_roots):
    cfg = recipe('StoreTeacher', repository, tmp_path)
    expected = dict(type='StoreTeacher', root='data/nuscenes/features')
    assert cfg.teacher == expected == transform(cfg, 'train', 'PrepareRays').teacher
    assert cfg.extract.type == 'MaskClipTeacher'  # what fills the store
    with pytest.raises(FileNotFoundError, match='data/nuscenes/features'):
        TASK_UTILS.build(cfg.teacher)


def test_a_recipe_with_the_teacher_in_the_step(repository, tmp_path, data_roots):
    cfg = recipe('online_teacher', repository, tmp_path)
    rays = transform(cfg, 'train', 'PrepareRays')
    assert rays.teacher == 'online' and rays.source.num_images == 8 and rays.num_rays == 14336
    assert cfg.model.data_preprocessor.online_teacher.type == 'MaskClipTeacher'
    TRANSFORMS.build(rays)


def test_a_recipe_that_scores_retrieval(repository, tmp_path, data_roots):
    cfg = recipe('RetrievalMetric', repository, tmp_path)
    for split in ('val', 'test'):
        kinds = [t.type for t in cfg[f'{split}_dataloader'].dataset.pipeline]
        assert kinds[-2:] == ['LoadRetrievalQueries', 'PackOccInputs']
        assert [m.type for m in cfg[f'{split}_evaluator']] == ['OccMetric', 'RetrievalMetric']
    assert METRICS.get('RetrievalMetric') and TRANSFORMS.get('LoadRetrievalQueries')


def test_a_store_by_hand(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(next(block for block in blocks('python') if 'FeatureWriter' in block), names)
    assert names['feats'].shape == (2, 512) and len(names['store']) == 2


def test_commands_have_their_options(repository):
    """Every option of a command stands in the tool or in the module of its arguments."""
    shared = repository / 'projects/LangOcc/langocc/apis/extraction_arguments.py'
    found = 0
    for block in blocks('bash'):
        for line in re.sub(r'\\\n', ' ', block).splitlines():
            tool = re.search(r'(tools/\S+\.py)', line)
            if tool is None:
                continue
            sources = [repository / tool[1], shared,
                       *(repository / 'tools/benchmarks').glob('command_line.py')]
            code = '\n'.join(path.read_text() for path in sources)
            for option in re.findall(r'\s(--[a-z-]+)', line.partition(tool[1])[2]):
                assert f"'{option}'" in code, (tool[1], option)
                found += 1
    assert found > 20
