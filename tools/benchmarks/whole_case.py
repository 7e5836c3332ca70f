"""A detector and a drive to predict: the paper's model at three sizes, weights random.

Needs langocc.

Legend: B batch, F frames, N cameras.
"""
import math
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Dict, Iterator, List

import torch
import torch.nn.functional as F
from torch import nn

from .head import DENSITY_THRESHOLD, make_vocabulary
from .real_rays import sequence_root
from .scene import EMBED_DIMS, RANGE

ROOT = Path(__file__).resolve().parents[2]
OCCUPIED = 0.1  # share of the voxels
SPREAD = 2.  # standard deviation of the densities' logits
SIZES = dict(full=dict(input_size=(256, 704), voxel=(0.4, 0.4, 0.4), depth_step=0.5),
             quarter=dict(input_size=(128, 352), voxel=(0.8, 0.8, 0.8), depth_step=1.),
             tiny=dict(input_size=(64, 96), voxel=(2., 2., 1.6), depth_step=4.))
YAWS = (55., 0., -55., 110., 180., -110.)


class WholeCase:
    """A LangOcc with normalised activations and a tenth of the voxels occupied, and its inputs.

    Args:
        preset: of SIZES.
        samples: consecutive samples of the drive.
        device: of everything.
        images: 'made', or 'real' for the real sequence.

    Attributes:
        model: in eval mode, with a vocabulary of 76 prompts.
        samples: inputs of batch 1, in order of time, that share their frames.
    """

    def __init__(self, preset: str, samples: int, device: str = 'cpu', images: str = 'made'):
        from mmengine.registry import init_default_scope
        init_default_scope('mmdet3d')
        size = SIZES[preset]
        make = real_samples if images == 'real' else made_samples
        torch.manual_seed(0)
        self.samples = [move(inputs, device) for inputs in make(samples, size['input_size'])]
        self.model = make_model(preset).to(device)
        calibrate(self.model, self.samples[0])


def make_model(preset: str) -> nn.Module:
    """The recipe's model at a size, random weights, in training mode."""
    from mmdet3d.registry import MODELS
    from mmengine.config import Config

    import langocc  # noqa: F401
    size = SIZES[preset]
    config = Config.fromfile(ROOT / 'configs' / '_base_' / 'models' / 'langocc_r50.py').model
    config.img_backbone.init_cfg = None
    if preset == 'tiny':
        config.img_backbone.update(depth=18, base_channels=16, stem_channels=16)
        config.img_neck.update(in_channels=[64, 128])
    axes = {axis: [RANGE[i], RANGE[i + 3], size['voxel'][i]] for i, axis in enumerate('xyz')}
    config.img_view_transformer.update(
        input_size=size['input_size'], grid_config=dict(axes, depth=[1., 45., size['depth_step']]))
    config.occ_head.update(grid=dict(point_cloud_range=RANGE, voxel_size=size['voxel']),
                           density_threshold=DENSITY_THRESHOLD)
    model = MODELS.build(config)
    with quiet_logger():
        model.init_weights()
    model.occ_head.set_vocabulary(make_vocabulary(EMBED_DIMS))
    return model


@contextmanager
def quiet_logger() -> Iterator[None]:
    """Without the lines on how each weight was initialised; mmengine's loggers are global."""
    from mmengine.logging import MMLogger
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel('WARNING')
    try:
        yield
    finally:
        logger.setLevel(level)


@torch.no_grad()
def calibrate(model: nn.Module, inputs: dict) -> None:
    """Sets what training would have: batch norms' statistics, densities and words that differ."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.momentum = 1.
    model.train()
    model.extract_feat(inputs)
    model.eval()
    for norm in norms:
        norm.momentum = 0.1
        # Camera parameters hardly differ in one batch: by less than they do over time.
        norm.running_var.clamp_(min=1e-2)
    field = model.extract_field(inputs)
    rows = field.feats.flatten(2).transpose(1, 2)[0]
    last = model.occ_head.density_decoder.layers[-1]
    logits = torch.logit(field.densities.flatten())
    scale = SPREAD / logits.std()
    cut = (logits * scale).sort().values[int(len(logits) * (1 - OCCUPIED))]
    last.weight *= scale
    last.bias += math.log(DENSITY_THRESHOLD / (1 - DENSITY_THRESHOLD)) - cut
    language = model.occ_head.language_decoder.layers
    language[-1].bias -= language(rows[::10]).mean(0)


def move(inputs: dict, device: str) -> dict:
    """The inputs on a device."""
    return {name: value.to(device) for name, value in inputs.items()}


def drive_rig(frames: List[int], key: int, input_size) -> 'CameraRig':  # noqa: F821
    """Six cameras of a car that turns while it drives; each fires at its own time."""
    from langocc.structures import CameraRig
    scale = input_size[1] / 704
    cam2img, cam2ego, poses = torch.eye(4).repeat(6, 1, 1), torch.eye(4).repeat(6, 1, 1), []
    for camera, yaw in enumerate(YAWS):
        cam2img[camera, 0, 0] = cam2img[camera, 1, 1] = (356. if yaw == 180. else 557.) * scale
        cam2img[camera, 0, 2], cam2img[camera, 1, 2] = 352. * scale, 115. * scale
        cos, sin = math.cos(math.radians(yaw)), math.sin(math.radians(yaw))
        cam2ego[camera, :3, :3] = torch.tensor([[sin, 0, cos], [-cos, 0, sin], [0, -1, 0]])
        cam2ego[camera, :3, 3] = torch.tensor([cos, sin, 1.5])

    def pose(time):
        matrix = torch.eye(4, dtype=torch.float64)
        cos, sin = math.cos(0.05 * time), math.sin(0.05 * time)
        matrix[:2, :2] = torch.tensor([[cos, -sin], [sin, cos]])
        matrix[:2, 3] = torch.tensor([2. * time, 0.05 * time * time])
        return matrix

    for frame in frames:
        poses.append(torch.stack([pose(frame + 0.02 * (n + frame % 3)) for n in range(6)]))
    shape = (1, len(frames), 6, 4, 4)
    return CameraRig(cam2img.expand(shape), cam2ego.expand(shape), torch.stack(poses)[None],
                     torch.eye(4).expand(shape), pose(key)[None])


def made_samples(count: int, input_size) -> List[Dict]:
    """Blurred noise; every frame a little different from the one before."""
    height, width = input_size
    generator = torch.Generator().manual_seed(0)

    def noise():
        coarse = torch.randn(6, 3, height // 8, width // 8, generator=generator)
        return F.interpolate(coarse, size=input_size, mode='bilinear', align_corners=False)

    still = noise()
    images = [still + 0.5 * noise() for _ in range(count + 2)]
    samples = []
    for key in range(2, count + 2):
        frames = [key, key - 1, key - 2]
        samples.append(dict(imgs=torch.stack([images[i] for i in frames])[None],
                            rig=drive_rig(frames, key, input_size),
                            bev_aug_matrix=torch.eye(4)[None]))
    return samples


def real_samples(count: int, input_size) -> List[Dict]:
    """Samples from the middle of the real sequence."""
    from mmengine.config import Config
    from mmengine.dataset import pseudo_collate

    from langocc.datasets import NuScenesOccDataset
    from langocc.datasets.nuscenes_infos import build_infos, infos_metainfo, write_infos
    from langocc.datasets.nuscenes_tables import NuScenesTables
    from langocc.models import OccDataPreprocessor
    config = Config.fromfile(ROOT / 'configs' / '_base_' / 'datasets' / 'pandaset_occ.py')
    tables, root = NuScenesTables(sequence_root(), 'v1.0-mini'), str(sequence_root())
    pipeline = [dict(type='PrepareImageInputs',
                     data_config=dict(config.data_config, input_size=input_size)),
                dict(type='PackOccInputs')]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'infos.json'
        write_infos(dict(metainfo=infos_metainfo(tables, {}),
                         data_list=build_infos(tables, list(tables.scenes)[:1])), path)
        dataset = NuScenesOccDataset(
            data_root=root, ann_file=str(path), camera_names=config.camera_names, test_mode=True,
            multi_adj_frame_id_cfg=config.multi_adj_frame_id_cfg, pipeline=pipeline)
    if len(dataset) < count + 2:
        raise ValueError(f'the sequence has {len(dataset)} samples, {count + 2} are needed')
    first, preprocessor = min(4, len(dataset) - count), OccDataPreprocessor()
    return [preprocessor(pseudo_collate([dataset[first + i]]))['inputs'] for i in range(count)]


def reduced_precision(device: str) -> bool:
    """Whether the device multiplies bfloat16 in hardware."""
    if torch.device(device).type == 'cuda':
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
