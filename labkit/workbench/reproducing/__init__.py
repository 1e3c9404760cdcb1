"""Recorded runs made again and judged; records unpacked."""
