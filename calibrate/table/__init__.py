"""From records to the tier table: the policy, what a tier gets, targets and waivers."""
