"""Who carries out what a campaign asks: this process, or several on this machine."""
