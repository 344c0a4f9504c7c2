"""The shell that drives a run: reads, decides, appends, carries out. Start at ``loop.drive``."""
