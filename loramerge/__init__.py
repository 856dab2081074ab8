"""loramerge: pull, take apart, merge and push LoRA adapters."""

__version__ = "0.1.0"
