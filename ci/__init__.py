"""The gate that judges pull requests; run it with `python -m ci.gate`."""
