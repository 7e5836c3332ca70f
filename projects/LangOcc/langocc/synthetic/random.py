"""Random generators of the synthetic world: one stream per purpose, whatever is drawn elsewhere."""
import zlib
from typing import Union

import numpy as np


def generator(*keys: Union[int, str]) -> np.random.Generator:
    """A generator that depends on the keys alone: not on the process, nor on what was drawn before.

    Args:
        keys: integers >= 0 (seed, index of a scene or an object) and words that name the purpose.

    Raises:
        ValueError: a negative integer.
    """
    for key in keys:
        if not isinstance(key, str) and key < 0:
            raise ValueError(f'keys of a generator must be >= 0, not {key} (keys {keys})')
    words = [zlib.crc32(key.encode()) if isinstance(key, str) else int(key) for key in keys]
    # SeedSequence ignores zeros at the end; the count tells (1,) from (1, 0).
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([len(words), *words])))
