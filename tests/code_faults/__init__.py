"""Every change of the code that the gate has to find."""

from tests.code_faults.denoise import DENOISE_FAULTS
from tests.code_faults.doors import DOOR_FAULTS
from tests.code_faults.first import FIRST_FAULTS
from tests.code_faults.looking import LOOKING_FAULTS
from tests.code_faults.plans import PLAN_FAULTS
from tests.code_faults.scenarios import SCENARIO_FAULTS
from tests.code_faults.stages import STAGE_FAULTS

CODE_FAULTS = (
    *FIRST_FAULTS,
    *DENOISE_FAULTS,
    *STAGE_FAULTS,
    *LOOKING_FAULTS,
    *DOOR_FAULTS,
    *PLAN_FAULTS,
    *SCENARIO_FAULTS,
)
