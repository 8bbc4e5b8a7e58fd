"""Looks at raw data before it is built: counts, sizes, pixels, a verdict.

Nothing here knows a data set by name: what differs between them is in their
layouts. Nothing imports TFDS or writes to the raw data.
"""
