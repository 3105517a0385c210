"""The vfs driver's entry point."""
