"""Run lamina beside the tools that do the same work, in turn, and compare what it costs."""
