"""`lamina image …`, `lamina container …`: the same commands under docker's longer names; and `lamina volume …`."""

from __future__ import annotations

from lamina.cli.lazy import LazyGroup
from lamina.cli.names import HERE, OF_CONTAINERS, OF_IMAGES

image = LazyGroup(
    "image",
    help="Work with images.",
    sections={
        "Commands": {
            "ls": f"{HERE}.images:images",
            **OF_IMAGES,
            "inspect": f"{HERE}.inspect:inspect_image",
            "mount": f"{HERE}.mounting:mount_image",
            "umount": f"{HERE}.mounting:umount",
            "verify": f"{HERE}.space:verify",
            "prune": f"{HERE}.space:prune",
            "rm": f"{HERE}.images:rmi",
        }
    },
)

container = LazyGroup(
    "container",
    help="Work with containers.",
    sections={
        "Commands": {
            "ls": f"{HERE}.containers:ps",
            **OF_CONTAINERS,
            "inspect": f"{HERE}.inspect:inspect_container",
            "mount": f"{HERE}.mounting:mount_container",
            "umount": f"{HERE}.mounting:umount",
            "cleanup": f"{HERE}.stopping:cleanup",
        }
    },
)

volume = LazyGroup(
    "volume",
    help="Work with volumes: directories that outlive containers.",
    sections={
        "Commands": {
            "ls": f"{HERE}.volumes:ls",
            "create": f"{HERE}.volumes:create",
            "inspect": f"{HERE}.volumes:inspect",
            "rm": f"{HERE}.volumes:rm",
            "prune": f"{HERE}.volumes:prune",
        }
    },
)
