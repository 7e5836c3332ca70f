"""Dense 2D teacher features of many images in few bytes, read at single pixels.

- :class:`FeatureWriter` adds maps (E, h, w) to a folder, from many processes at once; it may be
  killed at any moment. :class:`FeatureStore` reads them, :class:`StoreTeacher` is a store in a
  recipe.
- A :class:`Codec` turns each cell's feature into a row of bytes: :class:`Fp16Codec`,
  :class:`Int8Codec`, :class:`LinearCodec` (main directions, or a reducer's, in int8) and
  :class:`ProductCodec` (main directions, product quantised), which keeps most in 64 bytes.

Files are ``.safetensors`` of some hundred items each (:mod:`.layout`, :mod:`.parts`), which any
safetensors reader opens; only the mapping into memory is done here (:mod:`.mapping`). Candidates
were measured on 600 maps of 28 x 50 cells x 66 bytes, reading 14 pixels (56 cells) of each of 150
(2 shared CPU cores, fastest of 7; ext4 on a disk that reads 8 MB ahead; cold: not in the page
cache; all writers but sharded zarr's and h5py's lose nothing when killed):

===========================  =========  ============  =======  ========
files                        written/s  cold ms (MB)  warm ms  overhead
===========================  =========  ============  =======  ========
safetensors parts, as here        1959      27 (9.6)      4.7     0.1 %
  page faults alone               1959     138 (9.6)      1.1     0.1 %
  safetensors' own reader                  45 (55.3)      2.5     0.1 %
.npy, one an image               10632     66 (14.1)     17.3     2.0 %
lmdb, one a rank                 10361    288 (14.2)      1.0     2.1 %
sqlite, blobs                     3096     48 (55.0)      4.9     2.0 %
h5py, chunk an image               389     46 (16.7)     13.8     0.1 %
zarr 3, file an image             1162     96 (14.1)     45.8     2.0 %
zarr 3, sharded                   3534    152 (37.6)    200.6     0.0 %
===========================  =========  ============  =======  ========

lmdb and sqlite are not made for network file systems, and their bytes depend on what happened to
the writer; a killed h5py writer can leave an unreadable file, and a shard of zarr is written as a
whole or lost. A file for each image is as safe, but nuScenes has 204,894.
"""
from .codec_files import build_codec, load_codec, save_codec
from .codecs import Codec, Fp16Codec, Int8Codec
from .linear_codec import LinearCodec
from .manifest import DamagedStoreError, Manifest
from .product_codec import ProductCodec
from .store import FeatureStore, projected_bytes
from .store_teacher import StoreTeacher
from .writer import FeatureWriter, finish_store

__all__ = [
    'Codec', 'DamagedStoreError', 'FeatureStore', 'FeatureWriter', 'Fp16Codec', 'Int8Codec',
    'LinearCodec', 'Manifest', 'ProductCodec', 'StoreTeacher', 'build_codec', 'finish_store',
    'load_codec', 'projected_bytes', 'save_codec'
]
