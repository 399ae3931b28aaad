"""Device side of test_baseline.py: micropython deployed_files.py FOLDER

Prints a JSON line: what the baseline says of the files deployed there, and of the others.
"""

import json
import os
import sys

from vedette.baseline.firmware import check_added, check_deployed
from vedette.ports.board_facts import Facts


def result(check):
    try:
        while True:
            next(check)
    except StopIteration as end:
        return end.value


os.chdir(sys.argv[1])
print(json.dumps([result(check_deployed(Facts(None))), result(check_added(Facts(None)))]))
