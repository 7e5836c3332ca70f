"""Teachers from networks of one's own: features as they are, or class scores times text.

Legend: B images, C classes, E embedding, (H, W) size of an input, (h, w) cells of a map.
"""
import hashlib
from typing import Any, Callable, Dict, Optional, Sequence, Tuple, Union

import torch
import torch.nn.functional as F
from mmdet3d.registry import MODELS, TASK_UTILS
from torch import Tensor, nn

from .dense_teacher import DenseTeacher, Normalization, channel_values
from .text import TextEncoder

Network = Union[nn.Module, Callable[[Tensor], Any]]


@TASK_UTILS.register_module()
class NetworkTeacher(DenseTeacher):
    """Any callable from images to feature maps.

    A network of one's own whose features lie in the space of one's text encoder, whole:

    >>> import torch
    >>> from langocc.teachers import NetworkTeacher
    >>> class MyNetwork(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.patches = torch.nn.Conv2d(3, 512, kernel_size=16, stride=16)
    ...     def forward(self, images):  # (B, 3, H, W), normalised
    ...         return self.patches(images)  # (B, 512, H / 16, W / 16)
    >>> network = MyNetwork()
    >>> # network.load_state_dict(torch.load('mine.pt', weights_only=True))
    >>> teacher = NetworkTeacher(network, embed_dims=512, input_size=(448, 800), multiple=16,
    ...                          mean_std=((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    >>> images = torch.zeros(1, 3, 900, 1600, dtype=torch.uint8)
    >>> teacher.maps(images).shape
    torch.Size([1, 512, 28, 50])

    In a config, ``network`` is a config of mmdet3d's ``MODELS``: register the class there with
    ``@MODELS.register_module()`` and name its module in ``custom_imports``. Where a call does not
    do, subclass :class:`DenseTeacher`: :meth:`~DenseTeacher.cells`,
    :meth:`~DenseTeacher.compute` and, beside stored maps, :meth:`~DenseTeacher.describe`.

    Args:
        network: Takes (B, 3, H, W) float32 RGB, gives (B, E, h, w); or an object or mapping with
            such a tensor under one of ``outputs``. Or its config.
        embed_dims: E.
        outputs: Keys or attributes to look for, in this order, where the output is no tensor.
        multiple: Sides of inputs are made multiples of it, as networks with strides want them.
        mean_std: Mean and deviation of the channels of images in [0, 1]; None gives them as they
            are.
        name: What it is called beside stored maps; None takes the network's class.
        **dense: ``input_size``, ``dtype``, ``chunk_size``, ``text_encoder`` ... of
            :class:`DenseTeacher`.

    Raises:
        ValueError: ``input_size`` is not of multiples of ``multiple``; later, an output that is
            none of these.
    """

    def __init__(self,
                 network: Union[Network, dict],
                 embed_dims: int,
                 outputs: Sequence[str] = ('out', 'logits', 'features'),
                 multiple: int = 1,
                 mean_std: Optional[Normalization] = None,
                 name: Optional[str] = None,
                 **dense: Any) -> None:
        if isinstance(network, dict):
            network = MODELS.build(network)
        super().__init__(embed_dims, network, **dense)
        self.outputs = tuple(outputs)
        self.multiple = int(multiple)
        if self.input_size is not None and any(side % self.multiple for side in self.input_size):
            raise ValueError(f'input_size is {self.input_size}, expected multiples of '
                             f'{self.multiple}')
        self.name = type(network).__name__ if name is None else name
        mean, std = ((0, 0, 0), (1, 1, 1)) if mean_std is None else mean_std
        self._mean, self._std = channel_values('mean', mean), channel_values('std', std)
        self._cells: Dict[Tuple[int, int], Tuple[int, int]] = {}

    def fitted_size(self, height: int, width: int) -> Tuple[int, int]:
        """See :meth:`DenseTeacher.fitted_size`; the nearest multiples of ``multiple``."""
        if self.input_size is not None:
            return self.input_size
        return tuple(max(1, round(side / self.multiple)) * self.multiple
                     for side in (height, width))

    def cells(self, height: int, width: int) -> Tuple[int, int]:
        """See :meth:`DenseTeacher.cells`: a grey image is tried once for each size."""
        if (height, width) not in self._cells:
            grey = torch.full((1, 3, height, width), 0.5, device=self.device)
            with torch.no_grad():
                self._cells[height, width] = tuple(self._run(grey).shape[2:])
        return self._cells[height, width]

    def compute(self, images: Tensor) -> Tensor:
        """See :meth:`DenseTeacher.compute`."""
        return self._run(images)

    def describe(self) -> Dict[str, Any]:
        """See :meth:`DenseTeacher.describe`; the hash is of all of a module's values."""
        return dict(super().describe(), model=self.name, weights_sha256=values_sha256(self.network),
                    multiple=self.multiple, mean=self._mean.flatten().tolist(),
                    std=self._std.flatten().tolist())

    def _run(self, images: Tensor) -> Tensor:
        """The network's map (B, ?, h, w) of images in [0, 1]."""
        found = self.network((images - self._mean.to(images)) / self._std.to(images))
        for key in self.outputs:
            if isinstance(found, Tensor):
                break
            found = found[key] if isinstance(found, dict) and key in found else getattr(
                found, key, found)
        if not isinstance(found, Tensor) or found.dim() != 4:
            what = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(f'{self.name} gave {what}, expected a tensor (B, channels, h, w), or '
                             f'one under {list(self.outputs)}')
        return found


@TASK_UTILS.register_module()
class SegmenterTeacher(NetworkTeacher):
    """A segmenter's class probabilities times text: a dense teacher from any labelled network.

    feature = normalise(sum_c p_c t_c), with p the softmax of the classes' logits (background left
    out) and t_c the text embedding of class c, as :class:`ProbabilityTeacher` does with stored
    probabilities. torchvision's segmenters (``dict(out=...)``) and those of transformers (an output
    with ``.logits``, called as ``network(pixel_values)``) can be given as they are.

    >>> import torchvision                                                   # doctest: +SKIP
    >>> network = torchvision.models.segmentation.lraspp_mobilenet_v3_large()
    >>> teacher = SegmenterTeacher(network, text_encoder, class_names=names,
    ...                            ignore=[0], size=(56, 100), input_size=(448, 800))

    Args:
        network: Gives logits (B, C + ignored, h, w), see :class:`NetworkTeacher`.
        text_encoder: A :class:`TextEncoder` or its config.
        class_names: The C classes, in the order of the channels without those ignored.
        ignore: Channels that are no class, for instance background; they get no probability.
        size: (h, w) that probabilities are averaged to: segmenters often give a map of the size of
            the input, and a feature has E values where a probability has C. None keeps the size.
        temperature: Logits are divided by it.
        **network_options: Of :class:`NetworkTeacher`, ``prompts`` of :class:`TextTeacher` too.

    Raises:
        ValueError: a temperature that is not positive; later, other numbers of channels.
    """

    def __init__(self,
                 network: Union[Network, dict],
                 text_encoder: Union[TextEncoder, dict],
                 class_names: Sequence[str],
                 ignore: Sequence[int] = (),
                 size: Optional[Sequence[int]] = None,
                 temperature: float = 1.0,
                 **network_options: Any) -> None:
        if isinstance(text_encoder, dict):
            text_encoder = TASK_UTILS.build(text_encoder)
        if temperature <= 0:
            raise ValueError(f'temperature is {temperature}, expected a positive number')
        super().__init__(network, text_encoder.embed_dims, text_encoder=text_encoder,
                         class_names=class_names, **network_options)
        self.ignore = tuple(ignore)
        self.size = None if size is None else tuple(int(side) for side in size)
        self.temperature = float(temperature)

    def cells(self, height: int, width: int) -> Tuple[int, int]:
        """See :meth:`DenseTeacher.cells`."""
        return self.size or super().cells(height, width)

    def compute(self, images: Tensor) -> Tensor:
        """See :meth:`DenseTeacher.compute`."""
        with torch.autocast(images.device.type, enabled=False):
            probabilities = self.probabilities(images)
            return torch.einsum('bchw,ce->behw', probabilities, self.text_embeds.to(images))

    def probabilities(self, images: Tensor) -> Tensor:
        """(B, C, h, w) float32 of images in [0, 1], without the ignored channels; sums to 1."""
        with torch.autocast(images.device.type, self.dtype, enabled=self.dtype != torch.float32):
            logits = self._run(images).float()
        if logits.shape[1] != len(self.class_names) + len(self.ignore):
            raise ValueError(f'{self.name} gave {logits.shape[1]} channels, expected '
                             f'{len(self.class_names)} classes and {len(self.ignore)} ignored')
        kept = [channel for channel in range(logits.shape[1]) if channel not in self.ignore]
        probabilities = (logits[:, kept] / self.temperature).softmax(dim=1)
        if self.size is None or self.size == tuple(probabilities.shape[2:]):
            return probabilities
        return F.interpolate(probabilities, self.size, mode='bilinear', antialias=True,
                             align_corners=False)

    def describe(self) -> Dict[str, Any]:
        """See :meth:`DenseTeacher.describe`."""
        text = hashlib.sha256(self.text_embeds.numpy().tobytes()).hexdigest()
        return dict(super().describe(), class_names=list(self.class_names), text_sha256=text,
                    ignore=list(self.ignore), size=self.size and list(self.size),
                    temperature=self.temperature)


def values_sha256(network: Network) -> Optional[str]:
    """SHA-256 of all parameters and buffers of a module; None for other callables."""
    if not isinstance(network, nn.Module):
        return None
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        values = value.detach().cpu().contiguous()
        digest.update(f'{name} {values.dtype} {tuple(values.shape)}'.encode())
        digest.update(values.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
