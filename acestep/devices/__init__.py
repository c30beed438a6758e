"""The devices a run can use, behind one protocol."""
