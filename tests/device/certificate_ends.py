"""Device side of test_baseline.py: micropython certificate_ends.py FILE...

Prints a JSON line: the last day of each certificate (DER), as the baseline reads it.
"""

import json
import sys

from vedette.baseline.tls import _not_after

ends = []
for path in sys.argv[1:]:
    with open(path, "rb") as file:
        ends.append(_not_after(file.read()))
print(json.dumps(ends))
