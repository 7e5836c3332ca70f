"""What a store holds, written once: teacher, codec, code.

``{root}/manifest.json``, beside ``{root}/codec-{hash}.safetensors``. What each item is (size of the
map, checksum) stands in the parts (:mod:`.parts`), so that no file is written by two processes.
"""
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Union

FORMAT = 'langocc-feature-store'
VERSION = 1
MANIFEST_NAME = 'manifest.json'
REQUIRED_KEYS = ('teacher', 'weights_sha256', 'input_size')


class DamagedStoreError(ValueError):
    """A file or an item of a store is cut short, altered or foreign; the message names it."""


@dataclass(frozen=True)
class Manifest:
    """The content of a manifest.

    Attributes:
        description: Of the teacher, as JSON values; with ``teacher``, ``weights_sha256`` and
            ``input_size`` (None where a teacher has none).
        codec: As :func:`codec_identity` gives it.
        code_version: Of this package, when the store was begun.
    """
    description: Dict[str, Any]
    codec: Dict[str, Any]
    code_version: str

    @classmethod
    def create(cls, description: Dict[str, Any], codec: Dict[str, Any]) -> 'Manifest':
        """A manifest of this code.

        Raises:
            ValueError: the description lacks a required key or is no JSON.
        """
        from .. import __version__
        missing = [key for key in REQUIRED_KEYS if key not in description]
        if missing:
            raise ValueError(f'description of the teacher lacks {missing}; it has '
                             f'{sorted(description)}')
        try:
            description, codec = (json.loads(json.dumps(value, allow_nan=False))
                                  for value in (description, codec))
        except (TypeError, ValueError) as error:
            raise ValueError(f'description of the teacher {description}: {error}; expected JSON '
                             'values') from error
        return cls(description, codec, __version__)

    @classmethod
    def load(cls, root: Union[str, Path]) -> 'Manifest':
        """Read the manifest of a store.

        Raises:
            FileNotFoundError: there is no store.
            DamagedStoreError: the manifest is damaged or of another format.
        """
        path = Path(root) / MANIFEST_NAME
        try:
            content = json.loads(path.read_bytes())
        except FileNotFoundError:
            raise FileNotFoundError(f'no feature store at {root}: {path} does not exist') from None
        except ValueError as error:
            raise DamagedStoreError(f'{path} is no JSON: {error}') from error
        found = (content.get('format'), content.get('version')) if isinstance(content, dict) else ()
        if found != (FORMAT, VERSION):
            raise DamagedStoreError(f'{path}: format and version are {found}, expected '
                                    f'{(FORMAT, VERSION)}')
        try:
            manifest = cls(content['description'], content['codec'], content['code_version'])
        except KeyError as error:
            raise DamagedStoreError(f'{path} lacks the key {error}') from error
        if content.get('fingerprint') != manifest.fingerprint:
            raise DamagedStoreError(f'{path} was altered: its fingerprint is '
                                    f'{content.get("fingerprint")}, its content gives '
                                    f'{manifest.fingerprint}')
        return manifest

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that every part of the store carries."""
        return _digest(vars(self))

    @property
    def codec_name(self) -> str:
        """Name of the codec's file."""
        return f'codec-{_digest(self.codec)}.safetensors'

    def to_json(self) -> str:
        """The content of the file."""
        content = dict(format=FORMAT, version=VERSION, fingerprint=self.fingerprint, **vars(self))
        return json.dumps(content, indent=1) + '\n'

    def check_same(self, other: 'Manifest', root: Union[str, Path]) -> None:
        """Refuse to go on with another manifest than the store's own, ``self``.

        Raises:
            ValueError: naming every key that differs, with both values.
        """
        _refuse(differences(vars(self), vars(other)), root)

    def check_has(self, expected: Dict[str, Any], root: Union[str, Path]) -> None:
        """Refuse the store where ``expected``, a part of its manifest, is otherwise.

        Raises:
            ValueError: naming every key that differs, with both values.
        """
        expected = json.loads(json.dumps(expected))
        _refuse(differences(_restricted(vars(self), expected), expected), root)


def differences(stored: Any, given: Any, key: str = '') -> List[str]:
    """In words, with dotted keys, where two JSON values differ."""
    if isinstance(stored, dict) and isinstance(given, dict):
        return [line for name in [*stored, *(set(given) - set(stored))]
                for line in differences(stored.get(name), given.get(name),
                                        f'{key}.{name}' if key else str(name))]
    return [] if stored == given else [f'{key} is {stored!r}, here {given!r}']


def _restricted(value: Any, to: Any) -> Any:
    """``value`` with those keys only that ``to`` has, at every depth."""
    if isinstance(value, dict) and isinstance(to, dict):
        return {key: _restricted(value.get(key), to[key]) for key in to}
    return value


def _refuse(changes: List[str], root: Union[str, Path]) -> None:
    if changes:
        raise ValueError(f'the feature store {root} was made otherwise: ' + '; '.join(changes))


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
