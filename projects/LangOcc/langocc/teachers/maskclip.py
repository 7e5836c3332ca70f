"""MaskCLIP: dense features of CLIP's image tower in the space of its text.

Zhou, Loy, Dai: Extract Free Dense Labels from CLIP, ECCV 2022.

Legend: B images, (H, W) size of an input, (h, w) cells, E embedding, C classes,
M maps.
"""
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

import torch.nn.functional as F
from mmdet3d.registry import TASK_UTILS
from torch import Tensor

from .clip_towers import image_tower, logit_scale, normalization
from .clip_weights import find_weights
from .dense_teacher import DenseTeacher, Normalization, channel_values, size_pair
from .maskclip_blocks import LastBlock, smooth_by_keys
from .maskclip_towers import dense_tower
from .text import PathLike


@TASK_UTILS.register_module()
class MaskClipTeacher(DenseTeacher):
    """Dense features of an open_clip model: ViT (B/16, L/14, SigLIP ...), CLIP's ResNet, ConvNeXt.

    The last attention of the image tower is replaced by the identity, so that each patch keeps its
    own value, and what the tower's pooling and projection make of that value is its feature. For
    SigLIP, whose pooling is itself an attention over patches, that goes for both attentions; CLIP's
    ResNets have the pooling's attention only, ConvNeXts a plain mean in its place. Images of any
    size: position embeddings are interpolated bicubically.

    ``key_smoothing`` is the paper's, applied to unit features (:func:`smooth_by_keys`): predictions
    are linear in features, so that nothing is lost. ``prompt_denoising`` cannot be a matter of
    features, which know no prompts and shall stay open to words: it acts on :meth:`classes` alone.
    A class whose confidence (softmax of the model's scale times cosines) stays below this threshold
    in the whole image is not there; where none is left, everything is unknown. The paper's value is
    0.5.

    Args:
        model: open_clip's name of the model.
        weights: File or folder of weights; None takes the environment's LANGOCC_CLIP_WEIGHTS. The
            text tower may be left out of the file.
        pretrained: Instead of ``weights``, open_clip's tag of a training of ``model`` that lies in
            the Hugging Face cache, for instance 'openai'; it decides the activation, too.
        input_size: (H, W) that images are resized to, multiples of the patch; None takes the
            nearest multiples to each image's own size.
        window: (height, width) of sliding windows in pixels of the input, multiples of the patch,
            for instance the model's native (224, 224); windows larger than the input are cut to it.
            None shows the tower the whole input at once.
        stride: (vertical, horizontal) step of the windows; None is half the window. Unit features
            are averaged where windows overlap; the last window ends at the border.
        last_block: Options of :class:`LastBlock`; the default is MaskCLIP's.
        key_smoothing: Propagate features among patches by the similarity of their keys.
        prompt_denoising: Threshold in [0, 1], with ``class_names``; None keeps all prompts.
        mean_std: Mean and deviation of the channels of images in [0, 1]; None takes those that the
            model was trained with.
        **dense: ``dtype``, ``chunk_size``, ``cache_size``, ``text_encoder``, ``class_names`` ... of
            :class:`DenseTeacher`.

    Raises:
        ImportError: open_clip is not installed.
        FileNotFoundError: no weights are named, or they are not there.
        ValueError: weights of another model, a tower without a value path that is known, sizes that
            are not multiples of the patch, windows with gaps between them, a threshold without
            classes, or ``mean_std`` left out where trainings of the model differ in it.
    """

    def __init__(self,
                 model: str = 'ViT-B-16',
                 weights: Optional[PathLike] = None,
                 pretrained: Optional[str] = None,
                 input_size: Optional[Sequence[int]] = None,
                 window: Optional[Sequence[int]] = None,
                 stride: Optional[Sequence[int]] = None,
                 last_block: Optional[Dict[str, Any]] = None,
                 key_smoothing: bool = False,
                 prompt_denoising: Optional[float] = None,
                 mean_std: Optional[Normalization] = None,
                 **dense: Any) -> None:
        self.last_block = LastBlock(**last_block or {})
        self._weights = find_weights(weights, pretrained, model)
        state = self._weights.read()
        tower = dense_tower(image_tower(self._weights, state), self.last_block)
        super().__init__(int(self._weights.model_config['embed_dim']), tower, input_size, **dense)
        self.patch = tower.patch
        if key_smoothing and not tower.has_keys:
            raise ValueError(f'key_smoothing needs the keys of an attention; {model} has none')
        self.logit_scale = logit_scale(state)
        self.key_smoothing = key_smoothing
        self.prompt_denoising = _threshold(prompt_denoising, self.class_names)
        mean, std = normalization(self._weights) if mean_std is None else mean_std
        self._mean, self._std = channel_values('mean', mean), channel_values('std', std)
        if self.input_size is not None:
            self._multiple('input_size', self.input_size)
        self.window, self.stride = self._windows(window, stride)

    def fitted_size(self, height: int, width: int) -> Tuple[int, int]:
        """See :meth:`DenseTeacher.fitted_size`; without ``input_size`` the nearest multiples."""
        if self.input_size is not None:
            return self.input_size
        return tuple(max(1, round(size / patch)) * patch
                     for size, patch in zip((height, width), self.patch))

    def cells(self, height: int, width: int) -> Tuple[int, int]:
        """See :meth:`DenseTeacher.cells`."""
        return height // self.patch[0], width // self.patch[1]

    def compute(self, images: Tensor) -> Tensor:
        """See :meth:`DenseTeacher.compute`."""
        images = (images - self._mean.to(images)) / self._std.to(images)
        if self.window is None:
            return self._features(images)
        height, width = images.shape[2:]
        rows = _starts(height, self.window[0], self.stride[0])
        columns = _starts(width, self.window[1], self.stride[1])
        total = images.new_zeros(len(images), self.embed_dims, *self.cells(height, width))
        for top in rows:
            for left in columns:
                part = images[:, :, top:top + self.window[0], left:left + self.window[1]]
                values = F.normalize(self._features(part).float(), dim=1)
                y, x = self.cells(top, left)
                total[:, :, y:y + values.shape[2], x:x + values.shape[3]] += values
        return total  # the mean's direction

    def kept_prompts(self, maps: Tensor) -> Optional[Tensor]:
        """See :meth:`DenseTeacher.kept_prompts`: the prompts that are confident somewhere."""
        if self.prompt_denoising is None:
            return None
        cosines = self.text_embeds.to(maps) @ maps.flatten(2)
        confidence = (self.logit_scale * cosines).softmax(dim=1)
        return confidence.amax(dim=2) >= self.prompt_denoising

    def describe(self) -> Dict[str, Any]:
        """See :meth:`DenseTeacher.describe`."""
        weights = self._weights
        return dict(
            super().describe(), model=weights.config.parent.name if weights.config else
            weights.model, pretrained=weights.tag, weights_sha256=weights.sha256,
            quick_gelu=bool(weights.model_config.get('quick_gelu')),
            mean=self._mean.flatten().tolist(), std=self._std.flatten().tolist(),
            window=self.window and list(self.window), stride=self.stride and list(self.stride),
            last_block=vars(self.last_block).copy(), key_smoothing=self.key_smoothing)

    def _features(self, images: Tensor) -> Tensor:
        features, keys = self.network(images)
        return smooth_by_keys(features, keys) if self.key_smoothing else features

    def _multiple(self, name: str, size: Tuple[int, int]) -> None:
        if any(value % patch for value, patch in zip(size, self.patch)):
            raise ValueError(f'{name} is {size}, expected multiples of the patch {self.patch}')

    def _windows(self, window: Optional[Sequence[int]], stride: Optional[Sequence[int]]
                 ) -> Tuple[Optional[Tuple[int, int]], Optional[Tuple[int, int]]]:
        """Checked sizes of windows and steps."""
        if window is None:
            if stride is not None:
                raise ValueError(f'stride is {stride} without a window')
            return None, None
        window = size_pair('window', window)
        self._multiple('window', window)
        if stride is None:
            return window, tuple(max(1, size // patch // 2) * patch
                                 for size, patch in zip(window, self.patch))
        stride = size_pair('stride', stride)
        self._multiple('stride', stride)
        if stride[0] > window[0] or stride[1] > window[1]:
            raise ValueError(f'stride is {stride}, more than the window {window}: there would be '
                             f'gaps')
        return window, stride


def _starts(size: int, window: int, stride: int) -> List[int]:
    """Where windows begin on one axis; the last ends at the border."""
    last = max(size - window, 0)
    return [*range(0, last, stride), last]


def _threshold(value: Optional[float], class_names: Union[Sequence[str], None]) -> Optional[float]:
    if value is None:
        return None
    if class_names is None:
        raise ValueError('prompt_denoising needs text_encoder and class_names')
    if not 0 <= value <= 1:
        raise ValueError(f'prompt_denoising is {value}, expected a threshold in [0, 1]')
    return float(value)
