"""BEVStereo4DOCC and the published LangOcc as plain functions of their state dicts.

Written from the facts of paper.md with the published tensor names; no module of this project takes
part, so that names, order and meaning of converted weights can be checked stage by stage.

Legend: B batch, F frames (newest first), N cameras, C channels, D depth bins, h/w feature map.
"""
from typing import Dict, List

import torch
import torch.nn.functional as F
from test_net_depth_net import Reference as Layers
from torch import Tensor

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # RGB order, put on BGR channels


class PublishedNetwork:
    """The network in evaluation mode.

    Args:
        state: published name -> tensor.
        grid_config: BEVDet's, with ``depth``.
        input_size: (H, W), pixels.
        blocks: residual blocks of the four stages of the image backbone.

    After a call ``stages`` holds, by name, what each stage gave: one tensor a lifted frame, the
    oldest first, or a single one.
    """

    def __init__(self, state: Dict[str, Tensor], grid_config: dict, input_size, blocks):
        self.state = state
        self.grid_config = grid_config
        self.input_size = input_size
        self.blocks = blocks
        low, high, step = grid_config['depth']
        self.depths = torch.arange(low, high, step, dtype=torch.float64)  # lower edges
        self.stages: Dict[str, List[Tensor]] = {}

    def note(self, name: str, *values: Tensor) -> Tensor:
        self.stages.setdefault(name, []).extend(values)
        return values[-1]

    # ----------------------------------------------------------------- layers

    def part(self, prefix: str) -> Layers:
        return Layers({name[len(prefix):]: value for name, value in self.state.items()
                       if name.startswith(prefix)})

    def conv3d(self, x: Tensor, name: str, stride: int = 1) -> Tensor:
        """3 x 3 x 3 convolution without bias, BatchNorm."""
        layers = self.part(f'{name}.')
        x = F.conv3d(x, layers.state['conv.weight'], stride=stride, padding=1)
        return layers.norm(x, 'bn')

    def resnet3d(self, x: Tensor, name: str, blocks, strides) -> List[Tensor]:
        """The first block of a stage projects its shortcut."""
        levels = []
        for stage, (count, stride) in enumerate(zip(blocks, strides)):
            for block in range(count):
                place, step = f'{name}.layers.{stage}.{block}', stride if block == 0 else 1
                shortcut = self.conv3d(x, f'{place}.downsample', step) if block == 0 else x
                hidden = F.relu(self.conv3d(x, f'{place}.conv1', step))
                x = F.relu(self.conv3d(hidden, f'{place}.conv2') + shortcut)
            levels.append(x)
        return levels

    # ----------------------------------------------------------------- images

    def backbone(self, images: Tensor, stages: int = 4) -> List[Tensor]:
        """ResNet with bottlenecks, stride in the 3 x 3 convolution; (BN, 3, H, W) in [0, 255]."""
        net = self.part('img_backbone.')
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
        x = (images.flip(1) - mean) / std
        x = F.relu(net.norm(net.conv(x, 'conv1', stride=2, padding=3), 'bn1'))
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        outputs = []
        for stage in range(1, stages + 1):
            for block in range(self.blocks[stage - 1]):
                name, stride = f'layer{stage}.{block}', 2 if stage > 1 and block == 0 else 1
                hidden = F.relu(net.norm(net.conv(x, f'{name}.conv1'), f'{name}.bn1'))
                hidden = net.conv(hidden, f'{name}.conv2', stride=stride, padding=1)
                hidden = F.relu(net.norm(hidden, f'{name}.bn2'))
                hidden = net.norm(net.conv(hidden, f'{name}.conv3'), f'{name}.bn3')
                if block == 0:
                    x = net.norm(net.conv(x, f'{name}.downsample.0', stride=stride),
                                 f'{name}.downsample.1')
                x = F.relu(hidden + x)
            outputs.append(x)
        return outputs

    def neck(self, fine: Tensor, coarse: Tensor) -> Tensor:
        net = self.part('img_neck.')
        lateral = net.conv(fine, 'lateral_convs.0.conv')
        above = F.interpolate(net.conv(coarse, 'lateral_convs.1.conv'), size=lateral.shape[2:],
                              mode='nearest')
        return net.conv(lateral + above, 'fpn_convs.0.conv', padding=1)

    # ------------------------------------------------------------------- lift

    def frustum(self, height: int, width: int) -> Tensor:
        """(D, height, width, 3) u, v, d: the outermost cells on the outermost pixels."""
        v = torch.linspace(0, self.input_size[0] - 1, height, dtype=torch.float64)
        u = torch.linspace(0, self.input_size[1] - 1, width, dtype=torch.float64)
        d, v, u = torch.meshgrid(self.depths, v, u, indexing='ij')
        return torch.stack([u, v, d], dim=-1)

    @staticmethod
    def to_camera(frustum: Tensor, cam2img: Tensor, img_aug: Tensor) -> Tensor:
        """(N, D, h, w, 3) metres: undo the augmentation, scale by depth, inverse intrinsics."""
        depth = frustum[..., 2:]
        pixels = frustum[None] - torch.cat([img_aug[:, :2, 3], torch.zeros(len(img_aug), 1)], 1
                                           )[:, None, None, None]
        pixels = torch.einsum('nij,ndhwj->ndhwi', img_aug[:, :3, :3].inverse(), pixels)
        scaled = torch.cat([pixels[..., :2] * depth, depth.expand_as(pixels[..., 2:])], -1)
        return torch.einsum('nij,ndhwj->ndhwi', cam2img[:, :3, :3].inverse(), scaled)

    @staticmethod
    def move(matrix: Tensor, points: Tensor) -> Tensor:
        """(N, 4, 4) on (N, D, h, w, 3)."""
        return torch.einsum('nij,ndhwj->ndhwi', matrix[:, :3, :3], points) \
            + matrix[:, None, None, None, :3, 3]

    def parameters(self, rig: dict, key: dict, bev_aug: Tensor) -> Tensor:
        """(N, 27) what the depth net knows of a camera; the mounting is the key frame's."""
        rows = []
        for camera, cam2img in enumerate(rig['cam2img']):
            aug, bev = rig['img_aug_matrix'][camera], bev_aug
            rows.append([cam2img[0, 0], cam2img[1, 1], cam2img[0, 2], cam2img[1, 2],
                         aug[0, 0], aug[0, 1], aug[0, 3], aug[1, 0], aug[1, 1], aug[1, 3],
                         bev[0, 0], bev[0, 1], bev[1, 0], bev[1, 1], bev[2, 2],
                         *(key['key'].inverse() @ key['cam2global'][camera])[:3].flatten()])
        return torch.tensor(rows, dtype=torch.float32)

    def cost_volume(self, current: Tensor, previous: Tensor, rig: dict, prev: dict) -> Tensor:
        """(N, D, h4, w4): plane sweep at stride 4, what is not there by the published test."""
        height, width = current.shape[2:]
        points = self.to_camera(self.frustum(height, width), rig['cam2img'], rig['img_aug_matrix'])
        points = self.move(prev['cam2global'].inverse() @ rig['cam2global'], points)
        image = torch.einsum('nij,ndhwj->ndhwi', prev['cam2img'][:, :3, :3], points)
        behind = image[..., 2] < 1e-3
        pixels = image[..., :2] / torch.where(behind, 1., image[..., 2])[..., None]
        aug = prev['img_aug_matrix']
        pixels = torch.einsum('nij,ndhwj->ndhwi', aug[:, :2, :2], pixels) \
            + aug[:, None, None, None, :2, 3]
        size = torch.tensor([self.input_size[1] - 1, self.input_size[0] - 1])
        places = torch.where(behind[..., None], -2., pixels / size * 2 - 1).float()
        warped = F.grid_sample(previous, places.flatten(1, 2), align_corners=True)
        warped = warped.view(*previous.shape[:2], *points.shape[1:4])
        cost = (current[:, :, None] - warped).abs().sum(1)
        cost = cost + 5. * (warped[:, (previous.shape[1] - 1) // 4 * 4] == 0)
        return (-cost).softmax(1)

    def pool(self, depth: Tensor, context: Tensor, points: Tensor) -> Tensor:
        """(C, Z, Y, X): cells by truncation towards zero."""
        bounds = torch.tensor([self.grid_config[axis] for axis in 'xyz'], dtype=torch.float64)
        cells = ((points.float() - bounds[:, 0].float()) / bounds[:, 2].float()).long()
        shape = ((bounds[:, 1] - bounds[:, 0]) / bounds[:, 2]).round().long()
        volume = torch.zeros(context.shape[1], *shape.flip(0).tolist())
        for camera, d, i, j in torch.cartesian_prod(*(torch.arange(n) for n in points.shape[:4])):
            x, y, z = cells[camera, d, i, j]
            if (cells[camera, d, i, j] >= 0).all() and (cells[camera, d, i, j] < shape).all():
                volume[:, z, y, x] += depth[camera, d, i, j] * context[camera, :, i, j]
        return volume

    def lift(self, feats: Tensor, cost: Tensor, rig: dict, key: dict, bev_aug: Tensor) -> Tensor:
        """(C, Z, Y, X) of one frame of one item."""
        numbers = self.note('camera numbers', self.parameters(rig, key, bev_aug))
        net = self.part('img_view_transformer.depth_net.')
        logits, context = net(feats, numbers, self.note('cost volume', cost))
        self.note('depth logits', logits)
        self.note('context', context)
        points = self.to_camera(self.frustum(*feats.shape[2:]), rig['cam2img'],
                                rig['img_aug_matrix'])
        points = self.move(key['key'].inverse() @ rig['cam2global'], points)
        points = torch.einsum('ij,ndhwj->ndhwi', bev_aug[:3, :3], points) + bev_aug[:3, 3]
        self.note('frustum', points)
        return self.note('volume', self.pool(logits.softmax(1), context, points))

    # ------------------------------------------------------------------ whole

    @torch.no_grad()
    def __call__(self, images: Tensor, rigs: List[dict], bev_aug: Tensor) -> Dict[str, List]:
        """One item.

        Args:
            images: (3, N, 3, H, W) RGB in [0, 255]: the key frame, t-1 (lifted), t-2 (reference).
            rigs: of each frame: ``cam2img``, ``img_aug_matrix``, ``cam2global`` (N, 4, 4) and the
                key ego frame's pose ``key`` (4, 4), float64.
            bev_aug: (4, 4).

        Returns:
            ``stages``.
        """
        self.stages = {}
        previous = self.note('stride 4 of t-2', self.backbone(images[2], stages=1)[0])
        volumes = []
        for frame in (1, 0):  # concatenated in this order
            outputs = self.backbone(images[frame])
            self.note('stride 4', outputs[0])
            self.note('stride 32', outputs[3])
            feats = self.note('image neck', self.neck(outputs[2], outputs[3]))
            cost = self.cost_volume(outputs[0], previous, rigs[frame], rigs[frame + 1])
            volume = self.lift(feats, cost, rigs[frame], rigs[0], bev_aug.double())
            volumes.append(self.note('pre-process', *self.resnet3d(
                volume[None], 'pre_process_net', [1], [1])))
            previous = outputs[0]
        joined = self.note('concatenation', torch.cat(volumes, 1))
        levels = self.resnet3d(joined, 'img_bev_encoder_backbone', [1, 2, 4], [1, 2, 2])
        self.note('3D encoder', *levels)
        self.head(self.note('3D neck', self.neck3d(levels)))
        return self.stages

    def neck3d(self, levels: List[Tensor]) -> Tensor:
        net = self.part('img_bev_encoder_neck.conv.')
        up = [levels[0]] + [F.interpolate(level, scale_factor=scale, mode='trilinear',
                                          align_corners=True)
                            for level, scale in zip(levels[1:], (2, 4))]
        return F.relu(net.norm(F.conv3d(torch.cat(up, 1), net.state['conv.weight']), 'bn'))

    def head(self, volume: Tensor) -> None:
        """Final convolution with ReLU, then whichever decoders there are, at every voxel."""
        feats = F.conv3d(volume, self.state['final_conv.conv.weight'],
                         self.state['final_conv.conv.bias'], padding=1)
        feats = self.note('final convolution', F.relu(feats))
        rows = feats[0].flatten(1).t()
        if 'predicter.0.weight' in self.state:
            net = self.part('predicter.')
            self.note('class logits', net.linear(F.softplus(net.linear(rows, '0')), '2'))
            return
        self.note('density', self.decode('density_decoder', rows).sigmoid()[:, 0])
        language = self.decode('language_decoder', rows)
        self.note('language', language / language.norm(dim=1, keepdim=True).clamp(min=1e-12))

    def decode(self, name: str, rows: Tensor) -> Tensor:
        net = self.part(f'{name}.')
        for index in (0, 3, 6):
            rows = F.relu(net.linear(rows, f'layers.{index}'))
        return net.linear(rows, 'layers.9')
