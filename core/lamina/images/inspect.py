"""What people ask about an image: docker's inspect document and its history."""

from __future__ import annotations

from typing import Any

from lamina.images.config import ImageConfig
from lamina.images.fields import format_time
from lamina.images.records import HistoryRow, Image


def inspect(image: Image, config: ImageConfig, driver: str) -> dict[str, Any]:
    """As `docker image inspect` has it, field by field."""
    result: dict[str, Any] = {
        "Id": image.id,
        "RepoTags": list(image.names),
        "RepoDigests": list(image.digests),
        "Comment": config.history[-1].comment if config.history else "",
        "Created": format_time(image.created) if image.created else "",
        "Author": config.author,
        "Config": dict(config.settings),
        "Architecture": config.platform.architecture,
        "Os": config.platform.os,
        "Size": image.size,
        "GraphDriver": {"Name": driver, "Data": {"Snapshot": image.chain_id}},
        "RootFS": {"Type": "layers", "Layers": list(config.diff_ids)},
        "Descriptor": {"digest": image.manifest},
    }
    return result | ({"Variant": config.platform.variant} if config.platform.variant else {})


def history(image: Image, config: ImageConfig) -> tuple[HistoryRow, ...]:
    """One row a step, the newest first. Layers that the config tells no story of get a row without one."""
    sizes = [layer.size for layer in image.layers]
    rows: list[HistoryRow] = []
    for step in config.history:
        size = sizes.pop(0) if sizes and not step.empty_layer else 0
        rows.append(HistoryRow("<missing>", step.created, step.created_by, size, step.comment))
    rows += [HistoryRow("<missing>", None, "", size, "") for size in sizes]
    newest = [HistoryRow(image.id, row.created, row.created_by, row.size, row.comment) for row in rows[-1:]]
    return tuple(reversed([*rows[:-1], *newest]))
