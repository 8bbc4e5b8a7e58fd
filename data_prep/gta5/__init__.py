"""GTA5, the pictures of "Playing for Data"."""
