"""A simulated estate under the production loop: same seed, same history, to the byte.

Start at ``nights.simulate``. Only clock, dispatcher and actuators are simulated; the actuators have
a state of their own, and the invariants judge that state, never what a run believes.
"""
