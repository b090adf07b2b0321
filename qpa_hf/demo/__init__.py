"""`python -m qpa_hf.demo`: train, collapse, reload without us, compare."""
