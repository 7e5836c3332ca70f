"""State dicts with the names and shapes of published checkpoints, and random numbers.

Of LangOcc they are the list in ../shared/design; BEVDet's networks differ from it as paper.md and
their configurations say: 59 depth bins and 80 channels of a detector, the occupancy head.
"""
import re

import torch

# What a detector has behind the lift; enough of each part, names as BEVDet's.
DETECTOR_ONLY = {
    'pre_process_net.layers.0.0.conv1.weight': (80, 80, 3, 3),
    'pre_process_net.layers.0.0.bn1.running_mean': (80,),
    'img_bev_encoder_backbone.layers.0.0.conv1.weight': (160, 160, 3, 3),
    'img_bev_encoder_backbone.layers.2.1.bn2.weight': (640,),
    'img_bev_encoder_neck.conv.0.weight': (512, 800, 3, 3),
    'img_bev_encoder_neck.up2.4.bias': (256,),
    'pts_bbox_head.shared_conv.conv.weight': (64, 256, 3, 3),
    'pts_bbox_head.task_heads.0.heatmap.1.bias': (1,)}


def langocc_shapes(shared_root):
    """Name -> shape of the published full model, 588 tensors."""
    text = (shared_root / 'design' / 'published_state_dict.txt').read_text()
    found = re.findall(r'^(\S+) \(([\d, ]*)\)$', text, flags=re.MULTILINE)
    return {name: tuple(int(size) for size in re.findall(r'\d+', shape)) for name, shape in found}


def reduced_shapes(shared_root):
    """The reduced model: 128 numbers for 512, and the matrix under a name that nobody knows."""
    shapes = {name: (128, *shape[1:]) if name.startswith('language_decoder.layers.9') else shape
              for name, shape in langocc_shapes(shared_root).items()}
    return dict(shapes, some_matrix=(512, 128))


def bevdet_occ_shapes(shared_root):
    """BEVStereo4DOCC: LangOcc's trunk, its own head."""
    shapes = {name: shape for name, shape in langocc_shapes(shared_root).items()
              if not name.startswith(('final_conv', 'density', 'language'))}
    head = {'final_conv.conv.weight': (32, 32, 3, 3, 3), 'final_conv.conv.bias': (32,),
            'predicter.0.weight': (64, 32), 'predicter.0.bias': (64,),
            'predicter.2.weight': (18, 64), 'predicter.2.bias': (18,)}
    return dict(shapes, **head)


def bevdet_shapes(shared_root):
    """BEVStereo4D, the detector: 59 depth bins for 88, 80 context channels for 32."""
    image_parts = ('img_backbone.', 'img_neck.', 'img_view_transformer.')
    shapes = {}
    for name, shape in langocc_shapes(shared_root).items():
        if not name.startswith(image_parts):
            continue
        swaps = {88: 59, 344: 315}
        if name.startswith('img_view_transformer.'):
            shape = tuple(swaps.get(size, size) for size in shape)
        if '.context_conv.' in name:
            shape = (80, *shape[1:])
        shapes[name] = shape
    return dict(shapes, **DETECTOR_ONLY)


def torchvision_shapes(shared_root):
    """ResNet-50 as torchvision saved it before BatchNorm counted: no ``num_batches_tracked``."""
    shapes = {name[len('img_backbone.'):]: shape
              for name, shape in langocc_shapes(shared_root).items()
              if name.startswith('img_backbone.') and not name.endswith('num_batches_tracked')}
    return {**shapes, 'fc.weight': (1000, 2048), 'fc.bias': (1000,)}


SHAPES = {'langocc': langocc_shapes, 'bevdet-occ': bevdet_occ_shapes, 'bevdet': bevdet_shapes,
          'torchvision': torchvision_shapes}


def without_memory(shapes):
    """Name -> tensor on the meta device."""
    return {name: torch.empty(shape, device='meta') for name, shape in shapes.items()}
