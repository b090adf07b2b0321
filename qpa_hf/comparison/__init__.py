"""QPA beside LoRA, its own controls and PEFT's frugal methods, on the same model, text and budget of tuning."""
