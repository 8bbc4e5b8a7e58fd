"""IDD, the India Driving Dataset."""
