"""A stand-in for Claude, for demos, tests and rehearsed outages.

It is a plain ASGI application with no tie to Django, and it serves loopback only.
"""
