"""What a user may set in the table [drivers.btrfs]."""

from __future__ import annotations

from typing import Any

import attrs

from lamina.errors import ConfigError


@attrs.frozen
class BtrfsOptions:
    """Options of the btrfs driver."""

    # the most bytes that a writable layer may occupy; needs quotas, which you switch on (see the README)
    size: int | None = attrs.field(default=None)

    @size.validator
    def _be_possible(self, _attribute: attrs.Attribute[Any], value: int | None) -> None:
        if value is not None and value < 1:
            raise ConfigError(f"drivers.btrfs.size: {value} is not a size; leave it out for no limit")
