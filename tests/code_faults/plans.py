"""Changes after which plans promise less than the table."""

from tests.code_faults.fault import CodeFault

PLAN_FAULTS = (
    CodeFault(
        "every plan makes one song at a time",
        "acestep/limits/plan.py",
        "        max_batch=limits.max_batch,\n",
        "        max_batch=LmStates(with_lm=1, without_lm=1),\n",
        "plan",
        "max_batch",
        rules=("G512",),
    ),
    CodeFault(
        "every plan reaches half as far",
        "acestep/limits/plan.py",
        "        without_lm=prediction.reach(granted, thinks=False),\n",
        "        without_lm=prediction.reach(granted, thinks=False) // 2,\n",
        "plan",
        "reach",
        rules=("G512",),
    ),
)
