"""What a user may set in the table [drivers.zfs]."""

from __future__ import annotations

import re
from typing import Any, Final

import attrs

from lamina.errors import ConfigError

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.:-]*(/[A-Za-z0-9_.:-]+)*")


@attrs.frozen
class ZfsOptions:
    """Options of the zfs driver."""

    # below which the layers' datasets lie; its pool exists, and it is made if need be. One store has it to itself
    dataset: str = attrs.field(default="lamina/layers")
    # the most bytes that a writable layer may refer to, its parents' data included: zfs's refquota
    size: int | None = attrs.field(default=None)

    @dataset.validator
    def _be_a_dataset(self, _attribute: attrs.Attribute[Any], value: str) -> None:
        if not _NAME.fullmatch(value):
            raise ConfigError(f"drivers.zfs.dataset: {value!r} is not the name of a dataset; say pool/name")

    @size.validator
    def _be_possible(self, _attribute: attrs.Attribute[Any], value: int | None) -> None:
        if value is not None and value < 1:
            raise ConfigError(f"drivers.zfs.size: {value} is not a size; leave it out for no limit")

    @property
    def pool(self) -> str:
        """The pool that holds the dataset."""
        return self.dataset.partition("/")[0]
