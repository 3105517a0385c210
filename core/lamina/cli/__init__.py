"""The command line. Modules here are light: what costs time to import waits in the function that needs it."""
