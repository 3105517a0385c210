"""The face to pyfuse3: all requests together."""

from __future__ import annotations

from lamina_fuse.attributerequests import AttributeRequests
from lamina_fuse.directoryrequests import DirectoryRequests
from lamina_fuse.filerequests import FileRequests
from lamina_fuse.namerequests import NameRequests


class Operations(NameRequests, AttributeRequests, DirectoryRequests, FileRequests):
    """One task serves all requests, so the tree needs no locks, and replies may be made in one object."""
