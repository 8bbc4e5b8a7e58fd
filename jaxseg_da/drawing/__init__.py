"""Pictures and pieces of pages, from arrays and numbers.

Nothing here knows a run.
"""
