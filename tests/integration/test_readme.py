"""What README names exists, and its recipe for text embeddings gives a vocabulary."""
import json
import re
from pathlib import Path

import numpy as np

from langocc.teachers import Vocabulary


def test_named_files_exist(repository):
    text = (repository / 'README.md').read_text()
    pattern = r"\b(?:configs|tools|tests|projects|docs|benchmarks)/[\w./-]+\.\w+"
    names = set(re.findall(pattern, text))
    assert len(names) > 5
    missing = [name for name in names if not (repository / name).exists()]
    assert not missing, missing
    tools = re.findall(r'`([a-z_]+\.(?:py|sh))`', text)
    assert [name for name in tools if not (repository / 'tools' / name).exists()] == []


def test_named_options_are_in_the_code(repository):
    """Switches of the parity table: every keyword stands in the package."""
    text = (repository / 'README.md').read_text()
    code = '\n'.join(path.read_text() for path in (repository / 'projects').rglob('*.py'))
    switches = set(re.findall(r'\b(\w+)=(?:True|\')', text))
    assert {'bgr', 'truncate', 'published_invalid', 'key_ego'} <= switches
    assert [name for name in switches if not re.search(rf'\b{name}\b', code)] == []


def test_text_embeddings_as_described_give_the_vocabulary(repository, tmp_path, monkeypatch):
    text = (repository / 'README.md').read_text()
    code = next(block for block in re.findall(r'```python\n(.*?)```', text, re.S)
                if 'clip_vit_b16.npz' in block)
    monkeypatch.chdir(tmp_path)
    rows = np.eye(76, 512, dtype=np.float16)
    exec(code, dict(np=np, json=json, Path=Path, rows=rows))
    encoder = dict(type='TextEmbeddings', files='clip_vit_b16.npz')
    vocabulary = Vocabulary('occ3d_nuscenes', encoder)
    assert len(vocabulary) == 76 and np.array_equal(vocabulary.text_embeds.numpy(), rows)
