"""Goes on from a trained Show and Tell as recipes/self_critical.py does from Show, Attend and Tell: its control."""

from sightline.recipes import self_critical, show_and_tell

FRAME = self_critical
TINY_SYSTEM, build = show_and_tell.TINY_SYSTEM, show_and_tell.build
