"""QPA in the tools that people use, each in an environment of its own, with plain LoRA beside it: `make clients`."""
