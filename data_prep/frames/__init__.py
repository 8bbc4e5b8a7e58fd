"""Frames of any video, for depth that learns from motion."""
