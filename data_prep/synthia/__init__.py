"""SYNTHIA-RAND-CITYSCAPES, rendered frames with the classes of Cityscapes."""
