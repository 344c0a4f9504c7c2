"""continuity: brings critical state services up at the data embassy, and takes them home again."""

__version__ = "0.1.0"
