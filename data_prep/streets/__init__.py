"""The embedded street benchmark: a procedural world and its data sets."""
