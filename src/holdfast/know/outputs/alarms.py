"""How often the comparison of outputs finds something where there is nothing to find."""

FALSE_ALARMS = "not measured yet"
