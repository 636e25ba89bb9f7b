"""Models in the framework that trained them; one file each, `contract.py` says what one is."""
