"""Layer tars and trees: changes out of a tree into a tar, a tar into a tree, safely.

The format is that of the OCI image specification, layer.md: removals are empty files `.wh.NAME`, and `.wh..wh..opq`
says that nothing below shows through. Whatever a tar says, nothing outside the tree is read, written or linked to.
"""

from lamina.archive.unpacking import apply_direct, apply_merged
from lamina.archive.writing import write_layer

__all__ = ["apply_direct", "apply_merged", "write_layer"]
