"""Processes at work on a few objects, each killed at random failpoints and started again at once."""
