"""From prepared data sets to host batches; NumPy and Grain, no devices."""
