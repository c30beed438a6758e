"""What a pull request is judged by; `python -m ci.gate` is the door."""
