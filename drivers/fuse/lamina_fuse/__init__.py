"""A union file system of our own. Its entry point is `plugin`: the server, which starts often, imports none of that."""
