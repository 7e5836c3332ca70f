"""A user's words and the categories of LiDAR labels that they stand for."""
import numpy as np
import pytest

from langocc.datasets import NuScenesOccDataset
from langocc.evaluation.lidarseg_queries import lidarseg_queries, parse_words

CATEGORIES = {0: 'noise', 1: 'vehicle.car', 2: 'vehicle.truck', 3: 'human.pedestrian.adult',
              4: 'human.pedestrian.child', 5: 'flat.driveable_surface'}


def test_words_name_categories_whole_or_by_a_part():
    assert parse_words(['car', 'lorry=vehicle.truck', 'person = human ', 'road=driveable_surface',
                        'traffic=vehicle, adult'], CATEGORIES) == {
        'car': [1], 'lorry': [2], 'person': [3, 4], 'road': [5], 'traffic': [1, 2, 3]}
    assert parse_words(['noise'], {**CATEGORIES, 9: 'big.noise'}) == dict(noise=[0])
    assert parse_words(['man=pedestrian', 'b=a.c'], {1: 'h.pedestrian.adult', 2: 'xa.c', 3: 'a.c.d'}
                       ) == dict(man=[1], b=[3])


@pytest.mark.parametrize('words, categories, message', [
    (['fire hydrant'], CATEGORIES, "no category 'fire hydrant'.*nearest"),
    (['car=vehicle.cra'], CATEGORIES, "no category 'vehicle.cra'.*'vehicle.car'"),
    (['cra'], CATEGORIES, "no category 'cra'.*'car'"),
    (['car', 'car=truck'], CATEGORIES, "'car' is given twice"),
    (['=car'], CATEGORIES, "'=car' is no word with categories"),
    (['car=truck,'], CATEGORIES, 'is no word with categories'),
    (['car'], {}, 'prepare them from tables with lidarseg')])
def test_wrong_words_are_named(words, categories, message):
    with pytest.raises(ValueError, match=message):
        parse_words(words, categories)


def test_queries_of_a_frame(tiny_dataset):
    info = tiny_dataset.get_data_info(1)
    labels = np.fromfile(info['pts_semantic_mask_path'], np.uint8)
    words = parse_words(['car', 'alive=adult,animal'], tiny_dataset.metainfo['categories'])
    car, alive = lidarseg_queries(info, words)
    assert isinstance(tiny_dataset, NuScenesOccDataset)
    np.testing.assert_array_equal(car.labels, labels == 1)
    np.testing.assert_array_equal(alive.labels, (labels == 2) | (labels == 4))
    assert car.words == 'car' and alive.words == 'alive' and car.token == info['token']
    assert 0 < len(car.matching) < 200 and (np.diff(car.matching) > 0).all()


def test_frames_without_labels_are_named(tiny_dataset, tmp_path):
    info, words = tiny_dataset.get_data_info(0), dict(car=[1])
    plain = {key: value for key, value in info.items() if key != 'pts_semantic_mask_path'}
    with pytest.raises(ValueError, match='scene-a-0 has no LiDAR labels'):
        lidarseg_queries(plain, words)
    with pytest.raises(FileNotFoundError, match='none.bin of sample scene-a-0'):
        lidarseg_queries(dict(info, pts_semantic_mask_path=str(tmp_path / 'none.bin')), words)
    (tmp_path / 'short.bin').write_bytes(b'123')
    with pytest.raises(ValueError, match='short.bin labels 3 points.*has 200'):
        lidarseg_queries(dict(info, pts_semantic_mask_path=str(tmp_path / 'short.bin')), words)
