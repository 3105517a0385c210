"""The tools that are compared, each in a store of its own."""
