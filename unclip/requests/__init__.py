"""Requests: what to generate, validated. Imports neither torch nor numpy."""
