"""All cases, in the order in which they run (HDF5Data's shuffling goes on from case to case)."""

import cases_data
import cases_elementwise
import cases_losses
import cases_recurrent
import cases_structure
import cases_vision

_TABLES = (cases_elementwise, cases_vision, cases_structure, cases_losses, cases_recurrent, cases_data)
CASES = [case for table in _TABLES for case in table.CASES]
ABORTS = [abort for table in _TABLES for abort in table.ABORTS]
