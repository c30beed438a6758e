"""All probes of one record: which ones are needed, what runs them, and the journal of their results."""
