"""PEFT methods: QPA, and the feed-forward adapter that PEFT lacks."""
