"""Streaming on real images, poses and camera times."""
import sys
from pathlib import Path

import pytest
import torch

from langocc.models import StreamState

TOOLS = Path(__file__).resolve().parents[2] / 'tools'


@pytest.mark.real_data
def test_a_streamed_street_is_the_same(pandaset_root, monkeypatch):
    monkeypatch.setenv('LANGOCC_SHARED', str(pandaset_root.parents[1]))
    monkeypatch.syspath_prepend(str(TOOLS))
    from benchmarks.whole_case import WholeCase
    case, state = WholeCase('tiny', samples=5, images='real'), StreamState()
    volumes = []
    with torch.no_grad():
        for inputs in case.samples:
            volumes.append(case.model.extract_volume(inputs)[0])
            assert torch.equal(case.model.extract_volume(inputs, state)[0], volumes[-1])
    assert state.hits == 4 and state.misses == 6
    # The camera's place in the key ego frame is not the same in two key frames: what is kept is
    # what does not look at it.
    places = [inputs['rig'].frame(0).cam2key() for inputs in case.samples]
    assert all((one != other).any() for one, other in zip(places, places[1:]))
    assert all((one != other).any() for one, other in zip(volumes, volumes[1:]))


def teardown_module():
    for name in [name for name in sys.modules if name.split('.')[0] == 'benchmarks']:
        del sys.modules[name]
