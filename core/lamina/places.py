"""Where the config file and the store usually are, and which drivers are. Light: nothing is imported."""

from __future__ import annotations

import os

TYPE_CHECKING = False  # typing takes longer to import than a listing to print
if TYPE_CHECKING:
    from collections.abc import Mapping

WELL_KNOWN = ("overlay", "aufs", "fuse", "btrfs", "zfs", "devmapper", "vfs")  # the preferred first


def usual_file(environ: Mapping[str, str]) -> str:
    """The config file that is read if nobody names one; it need not exist."""
    if os.geteuid() == 0:
        return "/etc/lamina/config.toml"
    return f"{_home(environ, 'XDG_CONFIG_HOME', '.config')}/lamina/config.toml"


def usual_root(environ: Mapping[str, str]) -> str:
    """The store, if nobody says where it is."""
    if os.geteuid() == 0:
        return "/var/lib/lamina"
    return f"{_home(environ, 'XDG_DATA_HOME', '.local/share')}/lamina"


def _home(environ: Mapping[str, str], variable: str, below: str) -> str:
    if (named := environ.get(variable)) and named.startswith("/"):  # relative ones are to be ignored (XDG)
        return named
    if home := environ.get("HOME"):
        return f"{home}/{below}"
    import pwd  # noqa: PLC0415  # hardly ever needed

    return f"{pwd.getpwuid(os.geteuid()).pw_dir}/{below}"
