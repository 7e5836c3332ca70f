"""Whose weights a checkpoint holds, and how their names and ours go together.

Names and shapes: BEVDet's networks and the published LangOcc name the trunk as this project does;
what they call ``final_conv``, ``predicter``, ``density_decoder`` and so on is the head's here,
under ``occ_head.``. A BEVDet detector's networks behind the lift work on the BEV plane: LangOcc's,
on volumes, have no use for them, FlashOcc's are the same.
"""
import re
from dataclasses import dataclass, field
from typing import Dict, Iterable, Optional, Tuple

TRUNK = ('img_backbone', 'img_neck', 'img_view_transformer', 'pre_process_net',
         'img_bev_encoder_backbone', 'img_bev_encoder_neck')
IMAGE_PARTS = TRUNK[:3]
# Names of this project's heads: of voxels (2D or 3D), and of what losses remember.
OUR_HEAD = re.compile(r'occ_head\.(final_conv\.conv|predicter\.\d+|[a-z]\w*_decoder\.layers\.\d+|'
                      r'reducer|losses\.\w+)\.\w+$')
# Types of the parts, as recipes name them; a part that may be of several has them all.
_IMAGE_KINDS = dict(img_backbone=('ResNet',), img_neck=('CustomFPN',))
_VOLUME_KINDS = dict(
    _IMAGE_KINDS, img_view_transformer=('LSSViewTransformerBEVStereo',),
    pre_process_net=('CustomResNet3D',), img_bev_encoder_backbone=('CustomResNet3D',),
    img_bev_encoder_neck=('LSSFPN3D',), volume_skip=('False',))
_PLANE_KINDS = dict(
    _IMAGE_KINDS, img_view_transformer=('LSSViewTransformer', 'LSSViewTransformerBEVStereo'),
    pre_process_net=('CustomResNet',), img_bev_encoder_backbone=('CustomResNet',),
    img_bev_encoder_neck=('FPN_LSS',))
# In BEVDet's first versions the view transformer keeps the grid and the frustum as parameters.
_GEOMETRY = (r'img_view_transformer\.(dx|bx|nx|frustum|cv_frustum|grid_\w+)$',
             'geometry, computed from the config here')
# mmcv 1.x keeps its second set of weights as buffers, the names' dots made underscores.
_SECOND_SET = (r'ema_\w+$', "mmcv's second set of weights")


@dataclass(frozen=True)
class Family:
    """One kind of checkpoint.

    Attributes:
        name: how the tool calls it.
        title: how a person does.
        renames: pairs (their prefix, ours); names that none fits stay.
        dropped: pairs (pattern of their names, why they have no place here).
        complete: parts of the target that must be filled to the last tensor.
        loose: parts of which tensors of another shape are left out (another number of depth bins or
            channels), as their training recipes do.
        kinds: part -> types that it may have in a recipe whose network is one of this family.
        head: what the names of its head begin with: a target that has one of them has this family's
            head, which is then one of the complete parts; a model that goes back has them all.
        bgr: whether its images are BGR, normalised with statistics in RGB order.
    """
    name: str
    title: str
    renames: Tuple[Tuple[str, str], ...]
    dropped: Tuple[Tuple[str, str], ...]
    complete: Tuple[str, ...]
    loose: Tuple[str, ...] = ()
    kinds: Dict[str, Tuple[str, ...]] = field(default_factory=dict)
    head: Tuple[str, ...] = ()
    bgr: bool = False

    @property
    def colors(self) -> str:
        """Of the images that its networks see."""
        return 'BGR' if self.bgr else 'RGB'

    def ours(self, name: str) -> str:
        """Our name of their tensor."""
        for theirs, ours in self.renames:
            if re.match(theirs, name):
                return ours + name
        return name

    def theirs(self, name: str) -> Optional[str]:
        """Their name of our tensor; None where they have no such part."""
        for theirs, ours in self.renames:
            if name.startswith(ours) and re.match(theirs, name[len(ours):]):
                return name[len(ours):]
        return name if name.split('.')[0] in {*self.complete, *self.loose} else None

    def has_head(self, names: Iterable[str]) -> bool:
        """Whether any of our names is of this family's head."""
        return bool(self.head) and any(name.startswith(self.head) for name in names)

    def why_dropped(self, name: str) -> Optional[str]:
        """Why their tensor has no place here; None where it has one."""
        for pattern, reason in self.dropped:
            if re.match(pattern, name):
                return reason
        return None


FAMILIES: Dict[str, Family] = {family.name: family for family in (
    Family('langocc', 'published LangOcc',
           renames=((r'(final_conv|[a-z]+_decoder)\.', 'occ_head.'),),
           dropped=(_GEOMETRY, _SECOND_SET), complete=TRUNK,
           kinds={**_VOLUME_KINDS, 'occ_head': ('LangOccHead',),
                  'occ_head.density_decoder': ('DensityDecoder',),
                  'occ_head.decoders.lang': ('LanguageDecoder',)},
           head=('occ_head.density_decoder.', 'occ_head.language_decoder.'), bgr=True),
    Family('bevdet-occ', 'BEVDet occupancy network (BEVStereo4DOCC)',
           renames=((r'(final_conv|predicter)\.', 'occ_head.'),),
           dropped=(_GEOMETRY, _SECOND_SET), complete=TRUNK,
           kinds={**_VOLUME_KINDS, 'occ_head': ('BEVOccHead',)},
           head=('occ_head.predicter.',), bgr=True),
    Family('bevdet', 'BEVDet detector (BEVStereo4D and its kin)',
           renames=(),
           dropped=((r'pts_bbox_head\.', 'detection head'), _GEOMETRY, _SECOND_SET),
           complete=TRUNK[:2], loose=TRUNK[2:], kinds=_PLANE_KINDS, bgr=True),
    Family('torchvision', "torchvision's ResNet",
           renames=((r'(conv1|bn1|layer[1-4])\.', 'img_backbone.'),),
           dropped=((r'fc\.', 'classifier of ImageNet'), _SECOND_SET), complete=('img_backbone',),
           kinds=dict(img_backbone=('ResNet',))),
)}
# What other checkpoints begin with; so that one that came here by mistake is named.
_OTHERS = (
    (rf'(?!{OUR_HEAD.pattern})occ_head\.', "another project's occupancy network: its head's names "
     "are not this project's"),
    (r'occ_head\.', "this project's own layout: nothing to convert (--to goes back to another)"),
    (r'backbone\.(conv1|layer1|stem)', "an mmpretrain or mmdet model's layout ('backbone.*'); "
     "torchvision's names are without that prefix"),
    (r'(visual|transformer|text_model|vision_model)\.', 'a CLIP model; teachers read those '
     '(docs/teachers.md)'),
    (r'(pts_bbox_head\.transformer|pts_bbox_head\.query)', 'a query-based detector'),
    (r'(voxel_encoder|pts_voxel_encoder|middle_encoder)\.', 'a LiDAR detector'),
    (r'(blocks|encoder)\.\w+\.', 'a transformer'),
)


def detect_family(names: Iterable[str], where: str) -> Family:
    """The family of a state dict.

    Args:
        names: of its tensors.
        where: what an error is about: the file.

    Raises:
        ValueError: no known family; says what it looks like.
    """
    names = list(names)
    heads = {name.split('.')[0] for name in names}
    if 'density_decoder' in heads:
        return FAMILIES['langocc']
    if 'predicter' in heads:
        return FAMILIES['bevdet-occ']
    if {'img_backbone', 'img_view_transformer'} <= heads and 'occ_head' not in heads:
        return FAMILIES['bevdet']
    if {'conv1.weight', 'bn1.weight', 'layer1.0.conv1.weight'} <= set(names):
        return FAMILIES['torchvision']
    looks = next((title for pattern, title in _OTHERS
                  if any(re.match(pattern, name) for name in names)), None)
    raise ValueError(f'{where} is of no family that can be converted ({", ".join(FAMILIES)})'
                     + (f'; it looks like {looks}' if looks else '')
                     + f'; its tensors begin with {sorted(heads)[:6]}')
