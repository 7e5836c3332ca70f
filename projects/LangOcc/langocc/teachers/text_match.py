"""Whether text embeddings are of the space that a reducer was fitted to.

Legend: K prompts, E embedding, D reduced dimensions.
"""
import math

import torch.nn.functional as F
from torch import Tensor

from .reducer import Reducer


def strange_to(reducer: Reducer, text_embeds: Tensor) -> str:
    """Why rows can hardly be of the space that ``reducer`` was fitted to; '' where they may be.

    Told by what is left of the rows, reduced and restored: of strangers about sqrt(D / E), as in
    any D dimensions. Mean cosines measured, E = 512: of a reducer of text to 128 dimensions, of its
    own rows 0.97 and 0.98, of another encoder's 0.50 and 0.48 (offline words, CLIP ViT-B/16); of a
    PCA basis of CLIP's image features to 16 dimensions, of CLIP's words 0.91, of the offline ones
    0.17. The border lies midway between sqrt(D / E) and 1. Where little is reduced (D > E / 2)
    nothing can be told. The matrix alone is looked at, so it works on what came with a checkpoint;
    a matrix that nobody fitted is strange to all rows.

    Args:
        reducer: as it is used, after a checkpoint was loaded.
        text_embeds: (K, E) unit rows; some tens tell enough.

    Returns:
        The end of a message.
    """
    if 2 * reducer.dims > reducer.embed_dims or not len(text_embeds):
        return ''
    rows = F.normalize(text_embeds.to(reducer.matrix), dim=-1)
    mean = (reducer.restore(reducer.reduce(rows)) * rows).sum(dim=-1).mean().item()
    border = (1 + math.sqrt(reducer.dims / reducer.embed_dims)) / 2
    if mean > border:
        return ''
    return (f'of the text embeddings the model\'s reducer ({reducer.embed_dims} to {reducer.dims} '
            f'dimensions) keeps a mean cosine of {mean:.2f}, expected more than {border:.2f}: they '
            'are of another encoder than those that it was fitted to')
