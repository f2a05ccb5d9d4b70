"""How pages of other apps write times: as ours do.

In a file, because Django asks the formats of a language before its settings.
"""

DATETIME_FORMAT = "Y-m-d H:i T"
DATE_FORMAT = "Y-m-d"
TIME_FORMAT = "H:i"
