"""The store as a proxy snapshotter of containerd: its API on a Unix socket. Extra `lamina[containerd]`."""
