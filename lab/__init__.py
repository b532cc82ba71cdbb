"""The lab: a throw-away machine with a kernel, a SAN and faults of its own.

``python -m lab COMMAND`` boots it and runs a command in it as root (:mod:`lab.vm`). Inside,
:mod:`lab.san` builds targets behind several portals and :mod:`lab.faults` breaks them by name;
the tests that need a real kernel (``tests/lab``) are made of these.
"""
