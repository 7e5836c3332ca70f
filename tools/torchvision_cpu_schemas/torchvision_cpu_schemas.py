"""Declare the operators of torchvision that its import needs on a CPU-only torch.

A CUDA build of torchvision cannot load its compiled library beside a CPU build of torch, and its
import then fails while it registers meta kernels for operators that nobody declared. torch calls
``declare`` when it is imported (``torch.backends`` entry point). Models and transforms then work;
``torchvision.ops.nms`` and image decoding do not.
"""

SCHEMAS = (
    'nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor',
    'qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor',
)
_library = None  # keeps the declarations alive


def declare() -> None:
    """Declare the schemas on a CPU build of torch; do nothing on any other."""
    global _library
    import torch
    if torch.version.cuda or torch.version.hip or _library is not None:
        return
    _library = torch.library.Library('torchvision', 'DEF')
    for schema in SCHEMAS:
        _library.define(schema)
