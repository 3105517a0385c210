"""The overlay driver's entry point."""
