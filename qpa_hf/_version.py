"""The version, where both setup.cfg and the package find it without importing torch."""

__version__ = "0.2.0"
