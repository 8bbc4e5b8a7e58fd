"""What `main --mode=benchmark` measures, and the records it leaves."""
