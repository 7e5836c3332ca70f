"""An inferencer in mmengine's style: samples in, occupancy and answers to words out."""
import inspect
import logging
from typing import Any, Iterable, Iterator, List, Optional, Sequence, Tuple, Union

import torch
from mmdet3d.registry import INFERENCERS, TASK_UTILS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.infer import BaseInferencer
from mmengine.logging import print_log

from ..models.inference import optimize_for_inference
from ..models.streaming import StreamState
from ..models.voxel_field import VoxelField
from ..teachers.text_match import strange_to
from .init_model import build_dataset, init_model
from .language_index import LanguageIndex, embed_words, index_field
from .query import QueryResult, query_field, save_query

_DTYPES = {name: getattr(torch, name) for name in ('float32', 'bfloat16', 'float16')}


@INFERENCERS.register_module()
class OccInferencer(BaseInferencer):
    """Predicts samples of the config's test data set and answers text queries.

    >>> inferencer = OccInferencer('configs/x.py', 'work_dirs/x/epoch_1.pth')
    >>> inferencer([0], words=['car', 'person'], out_dir='queries')['predictions'][0].similarity
    >>> index = inferencer.index(0)  # many questions to one sample: the network runs once
    >>> index.similarity(['car'])
    >>> for result in inferencer.stream():  # a drive in order: each frame meets the backbone once
    ...     result.classes

    Args:
        model: config file or config.
        weights: checkpoint; without one the answers are a random network's, and a warning says so.
        device: None takes a GPU where there is one.
        show_progress: progress bar.
        dtype: precision of the network, by autocast: 'float32', 'bfloat16' or 'float16'.
        optimize: fold batch norms away and lay weights out for speed, same results up to rounding
            (see :func:`~langocc.models.optimize_for_inference`); ``inferencer.model`` then has
            other parameters than its checkpoint.

    Raises:
        ValueError: an unknown ``dtype``.
    """
    preprocess_kwargs: set = set()
    forward_kwargs = {'words'}
    visualize_kwargs = {'out_dir'}
    postprocess_kwargs: set = set()

    def __init__(self, model: Union[str, Config], weights: Optional[str] = None,
                 device: Optional[str] = None, show_progress: bool = False,
                 dtype: str = 'float32', optimize: bool = True):
        if dtype not in _DTYPES:
            raise ValueError(f'dtype {dtype!r} is not one of {sorted(_DTYPES)}')
        self.dtype = _DTYPES[dtype]
        self.optimize = optimize
        super().__init__(model, weights, device, scope='mmdet3d', show_progress=show_progress)

    def _init_model(self, cfg: Config, weights: Optional[str], device: str):
        self.device = torch.device(device)
        if weights is None and cfg.get('needs_checkpoint', True):
            print_log('no checkpoint is given: occupancy and answers are those of random weights',
                      'current', logging.WARNING)
        model = init_model(cfg, weights, device)
        return optimize_for_inference(model) if self.optimize else model

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def _init_pipeline(self, cfg: Config):
        self.dataset = build_dataset(cfg)
        encoder = cfg.get('text_encoder')
        self.text_encoder = None if encoder is None else TASK_UTILS.build(encoder)
        self._check_words()
        self._index_of = {self.dataset.get_token(i): i for i in range(len(self.dataset))}
        return self._load

    def _check_words(self) -> None:
        """Warns where the vocabulary's words are not of the space that the model was trained in."""
        head = getattr(self.model, 'occ_head', None)
        reducer, vocabulary = (getattr(head, name, None) for name in ('reducer', 'vocabulary'))
        if reducer is not None and vocabulary is not None:
            message = strange_to(reducer, vocabulary.text_embeds)
            if message:
                print_log(f'words will not find their things: {message}', 'current',
                          logging.WARNING)

    def _init_collate(self, cfg: Config):
        return self._collate

    @staticmethod
    def _collate(samples: List[dict]) -> dict:
        """mmengine's collation, which would take infos apart, with a plain list of infos."""
        infos = [sample['info'] for sample in samples]
        packed = [{key: value for key, value in sample.items() if key != 'info'}
                  for sample in samples]
        return dict(pseudo_collate(packed), info=infos)

    def _init_visualizer(self, cfg: Config) -> None:
        return None  # pictures are drawn by langocc.visualization

    def find(self, sample: Union[int, str]) -> int:
        """Index of a token or index; KeyError where the data set has not got it."""
        index = self._index_of.get(sample, sample)
        if not isinstance(index, int) or not -len(self.dataset) <= index < len(self.dataset):
            raise KeyError(f'sample {sample!r} is not in {self.dataset.ann_file}: give a sample '
                           f'token or an index below {len(self.dataset)}')
        return index % len(self.dataset)

    def _load(self, sample: Union[int, str]) -> dict:
        index = self.find(sample)
        return dict(self.dataset[index], info=self.dataset.get_data_info(index))

    @torch.no_grad()
    def forward(self, inputs: dict, words: Sequence[str] = (),
                stream: Optional[StreamState] = None) -> List[QueryResult]:
        """Fields of a batch and their answers to ``words`` (none: occupancy and classes only)."""
        field, infos = self._field(inputs, stream)
        results = []
        for index, info in enumerate(infos):
            item = VoxelField(field.feats[index:index + 1], field.densities[index:index + 1],
                              field.grid)
            with self._autocast():
                results.append(
                    query_field(self.model.occ_head, item, words, info, self.text_encoder))
        return results

    def stream(self, samples: Optional[Iterable[Union[int, str]]] = None,
               words: Sequence[str] = ()) -> Iterator[QueryResult]:
        """Predicts samples in order of time, one at a time.

        The results are those of calling the inferencer with each sample, but a frame's image
        features are computed when it is the key frame and kept for the next samples. Scenes may
        follow each other, and samples may be left out: what is not known is computed.

        Args:
            samples: tokens or indices; the whole data set by default.
            words: as in calling.

        Raises:
            TypeError: the detector cannot stream.
        """
        if 'stream' not in inspect.signature(self.model.extract_field).parameters:
            raise TypeError(f'{type(self.model).__name__}.extract_field takes no stream')
        return self._stream(range(len(self.dataset)) if samples is None else samples, words)

    def _stream(self, samples: Iterable[Union[int, str]], words: Sequence[str]
                ) -> Iterator[QueryResult]:
        state = StreamState()
        for sample in samples:
            yield from self.forward(self.collate_fn([self._load(sample)]), words, state)

    def _field(self, inputs: dict, stream: Optional[StreamState] = None
               ) -> Tuple[VoxelField, List[dict]]:
        inputs = dict(inputs)
        infos = inputs.pop('info')
        batch = self.model.data_preprocessor(inputs, False)['inputs']
        with self._autocast():
            if stream is None:
                return self.model.extract_field(batch), infos
            return self.model.extract_field(batch, stream=stream), infos

    def has(self, token: str) -> bool:
        """Whether a sample is in the data set."""
        return token in self._index_of

    @torch.no_grad()
    def field(self, sample: Union[int, str]) -> Tuple[VoxelField, dict]:
        """The voxel field of one sample, as a batch of one, and the sample's info."""
        field, infos = self._field(self.collate_fn([self._load(sample)]))
        return field, infos[0]

    def index(self, sample: Union[int, str], dtype: torch.dtype = torch.float32) -> LanguageIndex:
        """Language of one sample's occupied voxels, decoded once, to be asked for many words.

        Args:
            sample: token or index in the data set.
            dtype: of the stored features; float16 halves their memory.
        """
        field, info = self.field(sample)
        with self._autocast():
            return index_field(self.model.occ_head, field, 0, info['token'], self.text_encoder,
                               dtype)

    def embed(self, words: Sequence[str]) -> torch.Tensor:
        """(K, E) text embeddings; an unknown word lists the nearest known ones."""
        return embed_words(self.text_encoder, words)

    def visualize(self, inputs: list, preds: List[QueryResult], out_dir: Optional[str] = None
                  ) -> List[Any]:
        """Write .npz, .ply and pictures to ``out_dir``; returns the files of each sample."""
        if out_dir is None:
            return []
        return [save_query(result, out_dir) for result in preds]

    def postprocess(self, preds: List[QueryResult], visualization: List[Any],
                    return_datasample: bool = False) -> dict:
        """``predictions``: QueryResults; ``visualization``: files written, a list a sample."""
        return dict(predictions=preds, visualization=visualization)
