"""lamina keeps the file systems of containers: layers, snapshots and mounts on pluggable storage drivers."""
