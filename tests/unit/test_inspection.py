"""Inspection of codecs: numbers that are known beforehand, held-out images, sheets, stores."""
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_teachers import TinyDenseTeacher

from langocc.apis.extraction import extract_features
from langocc.apis.extraction_codecs import CodecRequest, rows_of_maps
from langocc.apis.extraction_images import DenseMaps, read_images
from langocc.apis.inspection import (
    Column, compute_maps, draw_images, draw_sheet, fidelity, fitted_columns, inspect_codecs,
    inspect_store, judge, show_store
)


@pytest.fixture
def images(tiny_root):
    return read_images([tiny_root / 'tiny_infos_all.json'], tiny_root)


@pytest.fixture
def source():
    return DenseMaps(TinyDenseTeacher())


class TwoWords:
    """A vocabulary of two axes: the greater of the first two values decides."""
    text_embeds = torch.eye(6)[:2]

    def classify(self, feats):
        return (feats @ self.text_embeds.T).argmax(dim=1)


def unit_map(*rows):
    """(E, 1, P) map of P features."""
    return F.normalize(torch.tensor(rows), dim=1).T[:, None]


def test_fidelity_is_over_cells_with_a_feature():
    before = unit_map([1., 0.], [0., 1.], [1., 1.], [0., 0.])
    after = unit_map([1., 0.], [1., 0.], [1., 0.], [1., 1.])
    row = fidelity([before], [after])
    assert row['mean_cosine'] == pytest.approx((1 + 0 + 0.5**0.5) / 3)
    assert row['p1_cosine'] == pytest.approx(0.02 * 0.5**0.5, abs=1e-6)
    assert 'class_agreement' not in row
    with pytest.raises(ValueError, match=r'restored is \(2, 1, 1\)'):
        fidelity([before], [unit_map([1., 0.])])
    with pytest.raises(ValueError, match='zeros alone'):
        fidelity([torch.zeros(2, 1, 1)], [torch.zeros(2, 1, 1)])


def test_class_agreement():
    before = unit_map([3., 1, 0, 0, 0, 0], [1., 3, 0, 0, 0, 0], [2., 1, 0, 0, 0, 0])
    after = unit_map([1., 0, 0, 0, 0, 0], [1., 0, 0, 0, 0, 0], [2., 1, 5, 0, 0, 0])
    assert fidelity([before], [after], TwoWords())['class_agreement'] == pytest.approx(2 / 3)


def test_codecs_are_judged_on_images_they_were_not_fitted_on(images, source, monkeypatch):
    seen = []
    monkeypatch.setattr(source, 'read', lambda item, read=source.read: (
        seen.append(item.token), read(item))[1])
    found = inspect_codecs(source, images, ['fp16', 'pca2-int8', 'pca6-int8'], TwoWords(),
                           count=2, fit_images=3, show=1)
    assert len(set(seen)) == len(seen) == 5
    assert [row['codec'] for row in found.rows] == ['fp16', 'pca2-int8', 'pca6-int8']
    assert [row['bytes_per_vector'] for row in found.rows] == [12, 4, 8]
    half, two, six = (row['mean_cosine'] for row in found.rows)
    assert two < six and six > 0.999 and half > 0.999999
    assert all(0 <= row['class_agreement'] <= 1 for row in found.rows)
    assert (found.facts['images'], found.facts['fit_images'], found.notes) == (2, 3, [])
    assert found.facts['cells'] == 2 * np.prod(source.map_size(images[0]))


def test_few_images_are_shared_out(images, source):
    found = inspect_codecs(source, images[:3], ['fp16'], count=8, fit_images=16)
    assert (found.facts['images'], found.facts['fit_images']) == (1, 2)
    with pytest.raises(ValueError, match='expected two at least'):
        inspect_codecs(source, images[:1], ['fp16'])
    with pytest.raises(ValueError, match="codec 'fp7' is not known"):
        inspect_codecs(source, images, ['fp7'])


def test_text_of_another_space_is_left_out(images, source):
    class Wide(TwoWords):
        text_embeds = torch.eye(7)
    found = inspect_codecs(source, images[:4], ['fp16'], Wide())
    assert 'class_agreement' not in found.rows[0]
    assert found.notes == ['class agreement: text embeddings have 7 values, the features 6']


def test_a_broken_image_is_named(images, source):
    open(images[1].path, 'w').close()
    with pytest.raises(ValueError, match=images[1].path):
        compute_maps(source, images[:2])


def test_stores_are_judged_by_their_teacher(images, source, tmp_path):
    extract_features(source, images[:4], tmp_path, CodecRequest('int8'))
    found = inspect_store(source, tmp_path, images, count=3)
    row, = found.rows
    assert row['codec'] == 'store' and row['bytes_per_vector'] == 6 and row['mean_cosine'] > 0.999
    assert {item.token for item in found.images} <= {item.token for item in images[:4]}
    with pytest.raises(ValueError, match='weights_sha256'):
        inspect_store(DenseMaps(TinyDenseTeacher(seed=1)), tmp_path, images)
    shown = show_store(tmp_path, images, show=2)
    assert shown.rows == [] and all(list(maps) == ['store'] for maps in shown.maps.values())
    with pytest.raises(ValueError, match='has none of the'):
        show_store(tmp_path, images[4:])


def test_sheet_shows_equal_features_in_equal_colours(images, source):
    columns = [Column('same', 24, lambda item, values: values),
               Column('flat', 1, lambda item, values: values[:, :1, :1].expand_as(values))]
    found = judge(columns, images[:2], compute_maps(source, images[:2]), show=2)
    sheet = draw_sheet(found.images, found.maps, dict(same='as it was'), width=80)
    photo, height = 80, 26 + 45 + 6  # caption, picture, gap
    assert sheet.shape == (2 * height + 6, 4 * (photo + 6) + 6, 3)
    left = [6 + column * (photo + 6) for column in range(4)]
    teacher, same, flat = (sheet[32:77, x:x + photo] for x in left[1:])
    assert np.array_equal(teacher, same) and len(np.unique(teacher.reshape(-1, 3), axis=0)) > 3
    assert (flat == flat[0, 0]).all() and np.array_equal(flat[0, 0], teacher[0, 0])


def test_draws_depend_on_the_seed_alone(images):
    assert draw_images(images, 3, 0) == draw_images(images, 3, 0) != draw_images(images, 3, 1)
    assert len(draw_images(images, 10**6, 0)) == len(images)


def test_rows_come_from_every_map():
    maps = [torch.full((3, 4, 5), float(value)) for value in range(3)]
    rows = rows_of_maps(maps, 2, np.random.default_rng(0))
    assert rows.tolist() == [[value] * 3 for value in (0., 0., 1., 1., 2., 2.)]
    assert len(rows_of_maps(maps, 100, np.random.default_rng(0))) == 60


def test_pq_of_any_number_of_bytes(images, source):
    columns = fitted_columns(['pq3', 'pq6'], compute_maps(source, images[:2]), 50)
    assert [column.row_bytes for column in columns] == [3, 6]
