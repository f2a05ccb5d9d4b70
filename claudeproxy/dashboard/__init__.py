"""What the admin's index and the pages of what was used show, panel by panel.

Each panel is one object of one module; templates only print it.
"""
