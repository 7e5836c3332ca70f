"""Images of the real sequence and the two teachers that the feature benchmarks run on.

CLIP's image weights are not to be had here. Features are those of the sequence's segmenter, its
probabilities times CLIP's text embeddings ('probabilities'), and those of a ViT of real size with
random weights on the same images ('random ViT'): the first lie in CLIP's text space but span few
directions, the second cost and look like a network's but mean nothing.

Needs langocc, open_clip and the real sequence.

Legend: E embedding, (H, W) size of an image, (h, w) size of a map.
"""
import json
from dataclasses import dataclass
from pathlib import Path
from typing import List, Tuple

import torch

from .real_rays import sequence_dataset, sequence_root

NUSCENES_IMAGES = 34149 * 6  # key frames of train and val, cameras
# Features of a key frame in the published layout: 535 GB over 34,149 frames are as many fp16 rows
# of 512; one sample reads 25 of them, 392 MB.
PUBLISHED_RAYS = 15300
# The recommended input at stride 16; the paper's 1820 x 1024 (nearest multiples of 16); the paper's
# student at stride 8.
MAP_SIZES = ((28, 50), (64, 114), (128, 228))
SEED = 0
_TINY_VIT = dict(embed_dim=512, text_cfg=dict(width=64, heads=1, layers=1),
                 vision_cfg=dict(image_size=224, patch_size=16, layers=2, width=64, head_width=64))


@dataclass(frozen=True)
class FeatureSize:
    """What the benchmarks take of the sequence.

    Attributes:
        frames: key frames of one training sample.
        rays: rays of it.
        rays_per_frame: pools that they are drawn from, one row each.
        map_sizes: (h, w), the first for everything, the others for sizes alone.
        images: images whose maps are stored and judged.
        vit: open_clip's name, 'tiny' for a toy.
        vit_input: (H, W).
        vit_images: images that the ViT sees.
        embedded_frames: key frames of the embedded world that are scored.
        embedded_fit_images: images of it that codecs are fitted on.
    """
    frames: int
    rays: int
    rays_per_frame: Tuple[int, ...]
    map_sizes: Tuple[Tuple[int, int], ...]
    images: int
    vit: str
    vit_input: Tuple[int, int]
    vit_images: int
    embedded_frames: int
    embedded_fit_images: int


FEATURE_SIZES = dict(
    full=FeatureSize(25, 8192, (PUBLISHED_RAYS, 35000), MAP_SIZES, 96, 'ViT-B-16', (448, 800), 24,
                     40, 66),
    quarter=FeatureSize(7, 2048, (PUBLISHED_RAYS, ), MAP_SIZES[:2], 24, 'ViT-B-16', (224, 400), 8,
                        12, 24),
    tiny=FeatureSize(2, 64, (500, ), ((7, 13), ), 6, 'tiny', (32, 64), 6, 2, 6))


class FeatureCase:
    """The sequence at a size.

    Args:
        size: of FEATURE_SIZES.

    Attributes:
        dataset: the sequence, all key frames.
        images: an :class:`ImageItem` for each of its images, key frame by key frame.
        vocabulary: of its segmenter's classes, in CLIP's text space.
    """

    def __init__(self, size: FeatureSize):
        from langocc.apis.extraction_images import ImageItem
        from langocc.teachers import TextEmbeddings, Vocabulary
        self.size, self.root = size, sequence_root()
        self.dataset = sequence_dataset()
        self.images = []
        for index in range(len(self.dataset)):
            records = self.dataset.get_data_info(index)['images']
            self.images += [ImageItem(records[camera]['sample_data_token'], camera,
                                      records[camera]) for camera in self.dataset.camera_names]
        self.text = TextEmbeddings(self.root / 'text_embeds' / 'clip_vit_b16.npz')
        self.vocabulary = Vocabulary('pandaset_cityscapes', self.text)

    def spread_images(self, count: int) -> List:
        """``count`` images (all where there are fewer), evenly over time and cameras."""
        count = min(count, len(self.images))
        return [self.images[index * len(self.images) // count] for index in range(count)]

    def key_frame_images(self, count: int) -> List:
        """About ``count`` images, all of some key frames, evenly over time; one frame at least."""
        cameras = len(self.dataset.camera_names)
        frames = max(1, min(count // cameras, len(self.dataset)))
        chosen = [index * len(self.dataset) // frames for index in range(frames)]
        return [self.images[frame * cameras + camera] for frame in chosen
                for camera in range(cameras)]

    def probabilities(self, map_size: Tuple[int, int]):
        """The segmenter's features, read at maps of a size."""
        from langocc.apis.extraction_images import SampledMaps
        from langocc.teachers import ProbabilityTeacher
        teacher = ProbabilityTeacher(self.root / 'teacher_probs', self.text, cache_size=8)
        return SampledMaps(teacher, map_size, dict(teacher='ProbabilityTeacher', input_size=None,
                                                   weights_sha256=None))

    def random_vit(self, folder: Path, device: str = 'cpu'):
        """MaskCLIP on a ViT with random weights, which are written to ``folder``."""
        from langocc.apis.extraction_images import DenseMaps
        from langocc.teachers import MaskClipTeacher
        write_random_clip(folder, self.size.vit)
        teacher = MaskClipTeacher(weights=folder, input_size=self.size.vit_input)
        return DenseMaps(teacher.to(device))


def write_random_clip(folder: Path, model: str) -> None:
    """A folder as open_clip publishes them, with the image side alone and random weights."""
    import open_clip
    from safetensors.torch import save_file
    config = _TINY_VIT if model == 'tiny' else open_clip.get_model_config(model)
    torch.manual_seed(SEED)
    tower = open_clip.model._build_vision_tower(config['embed_dim'], config['vision_cfg'])
    state = {f'visual.{key}': value.contiguous() for key, value in tower.state_dict().items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(state, str(folder / 'open_clip_model.safetensors'))
    (folder / 'open_clip_config.json').write_text(json.dumps(dict(model_cfg=config)))
