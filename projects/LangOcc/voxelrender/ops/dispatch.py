"""One dispatcher for all ops: which implementation answers to which backend.

The torch function is the definition; a faster kernel keeps its signature and is chosen here.
"""
BACKENDS = ('auto', 'torch', 'triton')


def resolve_backend(op: str, backend: str) -> str:
    """Name of the implementation to use for ``op``.

    Args:
        op: Name of the operation, for messages.
        backend: ``'auto'`` (the fastest there is), ``'torch'`` or ``'triton'``.

    Raises:
        ValueError: If the backend is unknown.
        RuntimeError: If the backend was asked for and is not there.
    """
    if backend not in BACKENDS:
        raise ValueError(f'{op}: backend is {backend!r}, expected one of {BACKENDS}')
    if backend == 'triton':
        raise RuntimeError(f"{op}: backend 'triton' is not built in this version; use 'auto' or "
                           "'torch'")
    return 'torch'
