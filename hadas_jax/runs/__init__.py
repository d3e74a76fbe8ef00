"""Runs on disk: work directories, their locks and checkpoints, the resumable loop."""
