"""2D and 3D feature extractors. ResNet is mmdet's, by config (``type='mmdet.ResNet'``)."""
from .column_encoder import ColumnEncoder
from .custom_resnet import CustomResNet
from .custom_resnet3d import CustomResNet3D, check_grid_shape
from .stride4 import extract_stride4

__all__ = ['ColumnEncoder', 'CustomResNet', 'CustomResNet3D', 'check_grid_shape', 'extract_stride4']
