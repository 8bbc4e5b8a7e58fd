"""What labels mean: tables of the driving data sets, and trees of classes.

NumPy only; nothing here knows about images, networks or runs.
"""
