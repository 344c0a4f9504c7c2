"""What continuity costs, as ratios to the same work done by hand on the same parts in the same minutes.

Run ``python -m bench`` for all of it, ``python -m bench append fold`` for some of it. Absolute times of a
shared machine say little; every figure with a budget is a ratio, or names what it was measured beside.
"""
