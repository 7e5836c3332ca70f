"""tools/visualize.py and test.py on the real sequence: the slab, labels alone, no labels at all."""
import runpy
import sys

import numpy as np
import pytest
from PIL import Image

from langocc.datasets.nuscenes_prepare import prepare_infos
from langocc.visualization import OCC3D_PALETTE

CONFIG = 'configs/constant-slab_pandaset.py'


@pytest.fixture
def visualize(monkeypatch, repository, pandaset_root, tmp_path):
    """Runs the tool on the real sequence; the folder of its pictures."""
    prepare_infos(root=str(pandaset_root), version='v1.0-mini', out_dir=str(tmp_path / 'infos'),
                  splits='all', prefix='pandaset')
    monkeypatch.setenv('PANDASET_ROOT', str(pandaset_root))
    monkeypatch.setenv('LANGOCC_INFO_ROOT', str(tmp_path / 'infos'))

    def run(*arguments):
        argv = ['visualize', repository / CONFIG, *arguments, '--out-dir', tmp_path / 'out',
                '--map-width', 48, '--device', 'cpu']
        monkeypatch.setattr(sys, 'argv', [str(argument) for argument in argv])
        runpy.run_path(str(repository / 'tools' / 'visualize.py'), run_name='__main__')
        return tmp_path / 'out'

    return run


def test_a_model_of_voxels_is_drawn_beside_the_labels(visualize, capsys):
    folder, = visualize('--samples', 3).iterdir()
    assert folder.name.startswith('00003_') and str(folder / 'sheet.png') in capsys.readouterr().out
    pictures = {path.stem: np.array(Image.open(path)) for path in folder.iterdir()}
    assert set(pictures) == {'cameras', 'distances', 'classes', 'occupancy_3d', 'occupancy_bev',
                             'errors', 'sheet'}
    assert pictures['sheet'].shape[1] == 1600
    # The slab is a road; the real street has cars and buildings, too.
    for label in (4, 11, 15):
        assert (pictures['classes'] == OCC3D_PALETTE[label]).all(-1).sum() > 500


def test_labels_alone_and_some_views(visualize):
    folder, = visualize('--labels-only', '--views', 'classes', 'occupancy_bev').iterdir()
    assert sorted(path.name for path in folder.iterdir()) == [
        'classes.png', 'occupancy_bev.png', 'sheet.png']


@pytest.fixture
def unlabelled(monkeypatch, repository, pandaset_root, tmp_path):
    """Config of the slab on infos whose labels are nowhere; its pipeline does not load them."""
    prepare_infos(root=str(pandaset_root), version='v1.0-mini', out_dir=str(tmp_path / 'infos'),
                  splits='all', prefix='pandaset', occ_root='/nowhere')
    monkeypatch.setenv('PANDASET_ROOT', str(pandaset_root))
    monkeypatch.setenv('LANGOCC_INFO_ROOT', str(tmp_path / 'infos'))
    config = tmp_path / 'unlabelled.py'
    config.write_text(f"""_base_ = '{repository / CONFIG}'
pipeline = [t for t in _base_.test_pipeline if t['type'] != 'LoadOccGTFromFile']
test_dataloader = dict(dataset=dict(pipeline=pipeline))
""")
    return config


def run_tool(monkeypatch, repository, name, *arguments):
    monkeypatch.setattr(sys, 'argv', [name, *map(str, arguments)])
    runpy.run_path(str(repository / 'tools' / f'{name}.py'), run_name='__main__')


def test_without_labels_the_prediction_is_drawn(unlabelled, monkeypatch, repository, tmp_path):
    run_tool(monkeypatch, repository, 'visualize', unlabelled, '--out-dir', tmp_path / 'out',
             '--views', 'occupancy_bev', 'errors', '--device', 'cpu')
    folder, = (tmp_path / 'out').iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ['occupancy_bev.png', 'sheet.png']


def test_without_labels_scoring_says_what_to_do(unlabelled, monkeypatch, repository, tmp_path,
                                                capsys):
    for config, words in ((unlabelled, 'scores against them (tools/test.py --format-only'),
                          (repository / CONFIG, 'leave LoadOccGTFromFile out of the pipeline')):
        with pytest.raises(SystemExit) as error:
            run_tool(monkeypatch, repository, 'test', config, '--work-dir', tmp_path / 'work')
        assert error.value.code == 2
        line = capsys.readouterr().err.strip().splitlines()[-1]
        assert line.startswith('test: ') and words in line and '/nowhere/pandaset-002/' in line


def test_unknown_samples_and_missing_checkpoints_are_one_line(visualize, capsys, tmp_path):
    for arguments, words in ((['--samples', '0', '99'], '99'), (['no.pth'], 'no.pth'),
                             (['--cfg-options', 'needs_checkpoint=True'], 'CHECKPOINT')):
        with pytest.raises(SystemExit) as error:
            visualize(*arguments)
        assert error.value.code == 2
        message = capsys.readouterr().err
        assert words in message and len(message.splitlines()) == 1
    assert not (tmp_path / 'out').exists()
