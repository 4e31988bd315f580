"""The few things the shell needs from the machine, each a small protocol.

Only the errors named in a docstring may leave a method; everything else is a bug that the
executor's one catch-all turns into the event that answers the order.
"""
