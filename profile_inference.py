"""Profile ACE-Step 1.5 on this machine's card, or on a simulated one: `python profile_inference.py --help`."""

from calibrate.profiling.cli import main

if __name__ == "__main__":
    main()
