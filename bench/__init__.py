"""What the gateway costs, measured on one machine beside a bare relay and nginx.

Nothing here is imported by the gateway. `python -m bench` measures,
`python -m bench.client_compare` is about the upstream client alone.
"""
