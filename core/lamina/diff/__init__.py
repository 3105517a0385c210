"""What differs between two trees, or what a ChangesTree alters, as one canonical list of changes.

The same pair of trees gives the same list, whoever walks: sorted by the bytes of the names, parents before children;
all directories above a change are listed; nothing below a removal is. See docs/decisions/0009-canonical-diff.md.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from lamina.changes import Change, ChangesTree
from lamina.descent import DIRECTORY
from lamina.diff.candidates import has_unseen_links, look_at
from lamina.diff.canonical import canonical
from lamina.diff.difference import Judge
from lamina.diff.walking import Recorded, all_names, walk

__all__ = ["compare", "compare_changes", "compare_paths"]


def compare(old: int | None, new: int) -> Iterator[Change]:
    """What leads from the tree below the open directory `old` to that below `new`; no `old` is an empty tree.

    Memory is bounded by the names of the directories on one path, and by the changes between two names of one file.
    """
    return canonical(walk(old, new, all_names, Judge()))


def compare_changes(old_view: int | None, tree: ChangesTree) -> Iterator[Change]:
    """The same as `compare` of the parent's view and the merged tree, but only what the layer holds is walked."""
    root = os.open(tree.root, DIRECTORY)
    try:
        yield from canonical(walk(old_view, root, Recorded(tree).names, Judge(tree.whiteouts.is_private_xattr)))
    finally:
        os.close(root)


def compare_paths(old: int, new: int, candidates: Iterable[Change]) -> Iterator[Change]:
    """The same as `compare`, but only these paths, and all below what is new, are looked at.

    If a file has names that are no candidates, both trees are walked after all: these names may have to be listed.
    """
    found = list(look_at(old, new, (change.path for change in candidates)))
    return compare(old, new) if has_unseen_links(found) else canonical(iter(found))
