"""The tar format, read and written in raw bytes; no file system is touched here."""

from lamina.tar.header import EntryType, Header
from lamina.tar.reading import EntryData, read_headers
from lamina.tar.writing import END_OF_ARCHIVE, padding, write_header

__all__ = ["END_OF_ARCHIVE", "EntryData", "EntryType", "Header", "padding", "read_headers", "write_header"]
