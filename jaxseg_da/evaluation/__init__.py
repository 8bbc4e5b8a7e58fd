"""How good predictions are, and predictions for people.

Metrics in integers, prediction of whole, sliding and multi-scale images, tables
of records. Nothing here knows about stages or work directories.
"""
