"""Readers of the field's real formats, and of single photographs."""
