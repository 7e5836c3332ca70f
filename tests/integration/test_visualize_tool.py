"""tools/visualize.py on the real sequence: the slab, labels alone, and what it refuses."""
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


def test_unknown_samples_and_missing_checkpoints_are_one_line(visualize, capsys, tmp_path):
    for arguments, words in ((['--samples', '0', '99'], '99'), (['no.pth'], 'no.pth'),
                             (['--cfg-options', 'needs_checkpoint=True'], 'CHECKPOINT')):
        with pytest.raises(SystemExit) as error:
            visualize(*arguments)
        assert error.value.code == 2
        message = capsys.readouterr().err
        assert words in message and len(message.splitlines()) == 1
    assert not (tmp_path / 'out').exists()
