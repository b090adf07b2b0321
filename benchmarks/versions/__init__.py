"""The versions that qpa_hf works with, found by running: `make matrix`. Needs nothing but Python and uv."""
