"""Device side of test_baseline.py: micropython held_names.py FOLDER

Prints a JSON line: what the checks for keys, and for code without verification, find there.
"""

import json
import os
import sys

from vedette.baseline import records, secrets, tls
from vedette.ports.board_facts import Facts


def result(pack, name):
    found = []
    for fields in records(pack.CHECKS):
        call = fields[2].split(" ") if len(fields) > 2 else [""]
        if call[0] == name:
            check = getattr(pack, "_check_" + name)(Facts(None), *call[1:])
            try:
                while True:
                    next(check)
            except StopIteration as end:
                found.append(end.value)
    return " ".join(found).strip()


os.chdir(sys.argv[1])
print(json.dumps({"key": result(secrets, "key"), "code": result(tls, "code")}))
