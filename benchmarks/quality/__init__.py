"""Quality against trainable numbers: QPA, its controls and PEFT's frugal methods on the same tasks and protocol."""
