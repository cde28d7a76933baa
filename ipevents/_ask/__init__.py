"""Requests with answers."""
