"""Reading a volume out of a detector that does not give it away.

Legend: B batch, C channels; X, Y, Z cells.
"""
from contextlib import contextmanager
from typing import Any, Iterator, List, Optional, Union

from torch import nn

from ..volumes import check_order, in_zyx


class VolumeTap:
    """Listens to what one module of a detector is given or returns.

    Args:
        module: path of the module in the detector, as in its ``state_dict``: 'neck_3d', or
            'neck_3d.0' for the first stage of a :class:`SequentialNeck`.
        value: 'output', or 'input' (the first argument).
        level: which element of a list, tuple or dict; None takes the value whole.
        order: the axes after batch and channels, see :func:`~langocc.models.volumes.in_zyx`. They
            are brought into the order z, y, x. Where the value stays whole it is left as it is.

    Raises:
        ValueError: another ``value``, or ``order`` is no order of axes.
    """

    def __init__(self, module: str, value: str = 'output', level: Union[int, str, None] = 0,
                 order: str = 'zyx'):
        if value not in ('input', 'output'):
            raise ValueError(f"volume.value is {value!r}, expected 'input' or 'output'")
        check_order(order)
        self.module = module
        self.value = value
        self.level = level
        self.order = order

    def __str__(self) -> str:
        return f'the {self.value} of {self.module}'

    def find(self, detector: nn.Module) -> nn.Module:
        """The module; ValueError lists what the detector has where there is no such one."""
        try:
            return detector.get_submodule(self.module)
        except AttributeError as error:
            names = [name for name, _ in detector.named_modules() if 0 < len(name) < 40]
            tops = [name for name in names if name.count('.') <= self.module.count('.')]
            raise ValueError(f'{type(detector).__name__} has no module {self.module!r}; it has '
                             f'{tops[:40]}') from error

    @contextmanager
    def listen(self, detector: nn.Module) -> Iterator[List[Any]]:
        """Within it, every call of the module adds a value to the list."""
        heard: List[Any] = []

        def hear(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
            heard.append(output if self.value == 'output' else [*args, *kwargs.values()][0])

        handle = self.find(detector).register_forward_hook(hear, with_kwargs=True)
        try:
            yield heard
        finally:
            handle.remove()

    def read(self, heard: List[Any], detector: nn.Module) -> Any:
        """What was heard, its axes in the order z, y, x.

        Raises:
            ValueError: the module was not called exactly once, or has no such level.
        """
        if len(heard) != 1:
            raise ValueError(f'{self.module} of {type(detector).__name__} was called {len(heard)} '
                             'times in this pass, expected once: tap another module (one whose '
                             'forward() is called directly is never heard)')
        value = heard[0]
        if self.level is None:
            return value
        if isinstance(value, (list, tuple, dict)):
            try:
                value = value[self.level]
            except (IndexError, KeyError, TypeError) as error:
                raise ValueError(f'{self} is a {type(value).__name__} of {_names(value)}, it has '
                                 f'no level {self.level!r}') from error
        return in_zyx(value, self.order)


def _names(value: Any) -> Optional[Any]:
    """Keys of a dict, or the length of a sequence."""
    return sorted(value) if isinstance(value, dict) else len(value)
