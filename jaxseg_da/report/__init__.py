"""The page of a run: reads work directories, knows nothing that runs."""
