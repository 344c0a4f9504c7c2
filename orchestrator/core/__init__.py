"""The functional core: values and functions only.

Nothing in here reads a clock, opens a file or knows a vendor. Time arrives inside inputs (``at``),
facts leave as events, and what must happen next follows from the state alone (``orders``).
Start reading at ``machine.advance``.
"""
