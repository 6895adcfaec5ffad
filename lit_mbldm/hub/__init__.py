"""The Hub: push, list, model card."""
